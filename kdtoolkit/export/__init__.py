"""Networks as SavedModel, LiteRT and Keras files: uint8 images in, probabilities out."""

from kdtoolkit._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    names={
        "EarlyExitFile": "early_exit_package",
        "EarlyExitPackage": "early_exit_package",
        "Exported": "artefact",
        "Parity": "parity",
        "ParityError": "parity",
        "check": "parity",
        "measure": "parity",
        "package_early_exit": "early_exit_package",
        "to_early_exit": "early_exit",
        "to_keras": "keras_file",
        "to_litert": "litert",
        "to_saved_model": "saved_model",
    },
)
