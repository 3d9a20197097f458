"""Everything that turns recovered motion into Blender datablocks; registers nothing."""
