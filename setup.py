"""Which folders are packages; all other metadata is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=("bgaug_d2", "bgaug_d2.*")), "bgaug_d2.configs"],
    # configs/ stays at the top of the repository; in a wheel it lies inside the package.
    package_dir={"bgaug_d2.configs": "configs"},
    package_data={
        "bgaug_d2": ["py.typed"],
        "bgaug_d2.configs": ["**/*.yaml"],
        "bgaug_d2.data": ["toy_backbone.safetensors"],
        "bgaug_d2.inpaint": ["tiny_model/*", "tiny_model/*/*"],
        "bgaug_d2.inspection": ["templates/*"],
        "bgaug_d2.report": ["plans/*"],
    },
)
