"""Packaging of bgaug_d2; Detectron2 comes apart from it, by tools/install_detectron2.py."""

from setuptools import find_packages, setup

setup(
    name="bgaug_d2",
    version="0.1.0",
    description="Background augmentation with diffusion models for Detectron2",
    license="Apache-2.0",
    packages=find_packages(include=("bgaug_d2", "bgaug_d2.*")),
    package_data={
        "bgaug_d2": ["py.typed"],
        "bgaug_d2.data": ["toy_backbone.safetensors"],
        "bgaug_d2.inpaint": ["tiny_model/*", "tiny_model/*/*"],
        "bgaug_d2.inspection": ["templates/*"],
        "bgaug_d2.report": ["plans/*"],
    },
    python_requires=">=3.10,<3.13",
    install_requires=[
        "accelerate>=1.0",
        "diffusers>=0.38",  # below: published vulnerabilities, as for jinja2, Pillow, ray, torch
        "huggingface_hub>=0.34",
        "hydra-core>=1.3.2,<1.4",
        "jinja2>=3.1.6",
        "matplotlib>=3.8",
        "numpy>=1.26",
        "omegaconf>=2.3,<2.4",
        "opencv-python>=4.12",
        "Pillow>=12.2",
        "pycocotools>=2.0.8",
        "PyYAML>=6.0",
        "safetensors>=0.4.3",
        "scipy>=1.11",
        "tensorboard>=2.16",
        "torch>=2.10",
        "torchvision>=0.25",
        "tqdm>=4.66",
        "transformers>=4.56",
        # Detectron2's own, which its wheel is installed without:
        "cloudpickle>=2.2",
        "fvcore>=0.1.5,<0.1.6",
        "iopath>=0.1.9,<0.1.10",
        "shapely>=2.0",  # fvcore crops polygons with it
        "tabulate>=0.9",
        "termcolor>=2.0",
        "yacs>=0.1.8",
    ],
    extras_require={
        "ray": ["ray>=2.54"],
        "dev": [
            "hypothesis>=6.100",
            "import-linter>=2.1",
            "mypy>=1.13",
            "pytest>=8.3",
            "pytest-cov>=6.0",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "ruff>=0.9",
            "types-tqdm",
        ],
    },
)
