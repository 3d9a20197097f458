"""The cube of Blender's factory start-up file: it stands where a figure will, so it is hidden if nobody has used it.

Whatever differs from the factory's cube in anything is somebody's work and stays.
"""

from __future__ import annotations

import itertools

import bpy

NAME, MATERIAL_NAME = "Cube", "Material"
CORNERS = set(itertools.product((-1.0, 1.0), repeat=3))
ATTRIBUTES = {"position", "sharp_face", "UVMap"}
"""Besides those whose names begin with a dot, which are Blender's own."""
UNTOLD = {"name", "dimensions", "track_axis", "up_axis", "lock_rotations_4d", "use_grease_pencil_lights"}
"""Plain properties of a factory object whose declared default is not what it has, or differs between versions."""
UNTOLD_PREFIXES = ("matrix_", "empty_", "show_empty_", "visible_")
SURFACE = {
    "Base Color": (0.8, 0.8, 0.8, 1.0),
    "Metallic": 0.0,
    "Roughness": 0.5,
    "Alpha": 1.0,
    "Specular IOR Level": 0.5,
    "Subsurface Weight": 0.0,
    "Transmission Weight": 0.0,
    "Coat Weight": 0.0,
    "Sheen Weight": 0.0,
    "Emission Strength": 0.0,
}
"""The inputs of the factory material that make it look as it does; where they are so, the others do nothing."""
PLAIN_TYPES = {"BOOLEAN", "INT", "FLOAT", "ENUM", "STRING"}


def hide_default_cube(layer: bpy.types.ViewLayer) -> bool:
    """Take an untouched default cube out of sight and out of renders; return whether there was one."""
    cube = layer.objects.get(NAME)
    if cube is None or not cube.visible_get(view_layer=layer) or not is_untouched(cube):
        return False
    cube.hide_set(True, view_layer=layer)
    cube.hide_render = True
    layer.update()
    return True


def show_default_cube(layer: bpy.types.ViewLayer) -> None:
    """Show the cube that was hidden; it is selected, as it came, where it is active still and nothing else is."""
    cube = layer.objects.get(NAME)
    if cube is None:
        return
    cube.hide_set(False, view_layer=layer)
    cube.hide_render = False
    if layer.objects.active == cube and not layer.objects.selected:
        cube.select_set(True, view_layer=layer)


def is_untouched(cube: bpy.types.Object) -> bool:
    """Return whether this object is the factory's cube as it came."""
    return (
        cube.type == "MESH"
        and cube.name == NAME
        and cube.mode == "OBJECT"
        and _is_bare(cube)
        and _is_alone(cube)
        and all(_has_default(cube, prop) for prop in cube.bl_rna.properties)
        and _is_factory_mesh(cube.data)
        and [slot.link for slot in cube.material_slots] == ["DATA"]
        and _is_factory_material(cube.material_slots[0].material)
    )


def _is_bare(block: bpy.types.ID) -> bool:
    """Whether a datablock is local and carries nothing of the user's."""
    is_own = block.library is None and block.override_library is None and block.asset_data is None
    return is_own and not block.use_fake_user and not block.keys() and block.animation_data is None


def _is_alone(cube: bpy.types.Object) -> bool:
    """Whether nothing hangs on the object, acts on it, or shares it with another scene or collection."""
    acting = (cube.modifiers, cube.constraints, cube.vertex_groups, cube.particle_systems)
    return (
        cube.parent is None
        and not cube.children
        and not any(len(things) for things in acting)
        and (cube.rigid_body, cube.rigid_body_constraint, cube.field.type) == (None, None, "NONE")
        and len(cube.users_collection) == len(cube.users_scene) == 1
    )


def _has_default(block: bpy.types.bpy_struct, prop: bpy.types.Property) -> bool:
    """Whether a plain property is as declared: transforms, locks, display and so on. True for what is not told."""
    name = prop.identifier
    if prop.type not in PLAIN_TYPES or prop.is_readonly or name in UNTOLD or name.startswith(UNTOLD_PREFIXES):
        return True
    value = getattr(block, name)
    if prop.type == "ENUM":
        return value == (prop.default_flag if prop.is_enum_flag else prop.default)
    if prop.type != "STRING" and prop.is_array:
        return tuple(value) == tuple(prop.default_array)
    return value == prop.default


def _is_factory_mesh(mesh: bpy.types.Mesh) -> bool:
    own = {attribute.name for attribute in mesh.attributes if not attribute.name.startswith(".")}
    return (
        mesh.users == 1
        and _is_bare(mesh)
        and mesh.shape_keys is None
        and (len(mesh.vertices), len(mesh.edges), len(mesh.polygons)) == (8, 12, 6)
        and {tuple(vertex.co) for vertex in mesh.vertices} == CORNERS
        and own <= ATTRIBUTES
        and not any(polygon.use_smooth for polygon in mesh.polygons)
    )


def _is_factory_material(material: bpy.types.Material | None) -> bool:
    if material is None or material.name != MATERIAL_NAME or material.users != 1 or not _is_bare(material):
        return False
    tree = material.node_tree
    if tree is None or tree.animation_data is not None or len(tree.links) != 1:
        return False
    nodes = {node.bl_idname: node for node in tree.nodes}
    if len(tree.nodes) != 2 or set(nodes) != {"ShaderNodeBsdfPrincipled", "ShaderNodeOutputMaterial"}:
        return False
    inputs = nodes["ShaderNodeBsdfPrincipled"].inputs
    return _is_near(material.diffuse_color, SURFACE["Base Color"]) and all(
        name in inputs and _is_near(inputs[name].default_value, value) for name, value in SURFACE.items()
    )


def _is_near(value, expected) -> bool:
    """Whether a number or a colour is the expected one, which single precision may have rounded."""
    if isinstance(expected, tuple):
        return len(value) == len(expected) and all(map(_is_near, value, expected))
    return abs(value - expected) < 1e-6
