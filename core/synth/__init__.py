"""Synthetic training data: mocap on the 24 joints, cameras, rendered clips through the detector, a noise model.

mocap      read the source motion file: skeletons, rotations, forward kinematics
retarget   source skeletons -> the body's 24 joints; motion file written and read
collect    CMU's takes as FBX files -> a motion file; daz_fbx reads one, trials finds and names them, pieces cuts and
           resamples, copies knows what comes twice
splits     which mocap subject trains, validates or tests
cameras    random pinhole cameras, projection, motion of the camera
handheld   cameras that roll
hands      arms put on the body and before it
garments   what hangs on the body: skirts, coat tails, hair; outfits says who wears what
places     backgrounds in perspective
raster     batched triangle rasteriser in torch, any device
appearance clothes, skin, hair, lights, backgrounds, occluders, degradations
track      the detector in lockstep over many clips
dataset    rendered clips -> shards (format.py says what a shard holds)
noise      keypoint noise model fitted to the detector's errors
sampler    endless random sequences on the device
demo       the demonstration clip with its ground truth

Nothing here runs in the shipped extension.
"""
