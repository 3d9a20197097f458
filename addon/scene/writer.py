"""Writes the engine's messages into the scene: the figure grows on the timeline while the job runs.

How to call it (main thread only)::

    writer = SceneWriter(context.scene, WriterOptions(mode="ARMATURE", method="fit", version="0.1.0"))
    # timer, or a plain loop in background mode:
    writer.handle(message)          # any protocol message, cheap (stores; under 1 ms); irrelevant ones are ignored
    more = writer.tick(0.004)       # writes for at most about that long; True while work waits
    # after Done, Error or the engine's death:
    while writer.tick(0.008): ...   # spread over timer calls when there is a window
    summary = writer.finish()       # completes what is left at once, closes files; call it exactly once
    bpy.ops.ed.undo_push(message="Recover Motion")

Undo: the writer itself never pushes an undo step. A job started by an operator without the UNDO option, and one
`bpy.ops.ed.undo_push` after `finish()`, make the whole figure one step. Undo, deletion and loading another file
while the job runs are safe: datablocks are looked up by session id each time, and what has vanished is not made
again (its frames are counted in `WriterSummary.dropped_frames`).
"""
