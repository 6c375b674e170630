"""Networks as SavedModel, LiteRT and Keras files: uint8 images in, probabilities out."""

from typing import TYPE_CHECKING

from kdtoolkit._lazy import attach

if TYPE_CHECKING:
    from kdtoolkit.export import thresholds as thresholds
    from kdtoolkit.export.artefact import Exported as Exported
    from kdtoolkit.export.early_exit import to_early_exit as to_early_exit
    from kdtoolkit.export.early_exit_files import EarlyExitFile as EarlyExitFile
    from kdtoolkit.export.early_exit_package import EarlyExitPackage as EarlyExitPackage
    from kdtoolkit.export.early_exit_package import package_early_exit as package_early_exit
    from kdtoolkit.export.keras_file import to_keras as to_keras
    from kdtoolkit.export.litert import to_litert as to_litert
    from kdtoolkit.export.metadata import About as About
    from kdtoolkit.export.mixed import Mixed as Mixed
    from kdtoolkit.export.mixed import RoundedOperation as RoundedOperation
    from kdtoolkit.export.mixed import to_mixed as to_mixed
    from kdtoolkit.export.parity import TOLERANCES as TOLERANCES
    from kdtoolkit.export.parity import Parity as Parity
    from kdtoolkit.export.parity import ParityError as ParityError
    from kdtoolkit.export.parity import Tolerance as Tolerance
    from kdtoolkit.export.parity import check as check
    from kdtoolkit.export.parity import measure as measure
    from kdtoolkit.export.saved_model import to_saved_model as to_saved_model
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        modules=("thresholds",),
        names={
            "About": "metadata",
            "EarlyExitFile": "early_exit_files",
            "EarlyExitPackage": "early_exit_package",
            "Exported": "artefact",
            "Mixed": "mixed",
            "Parity": "parity",
            "ParityError": "parity",
            "RoundedOperation": "mixed",
            "TOLERANCES": "parity",
            "Tolerance": "parity",
            "check": "parity",
            "measure": "parity",
            "package_early_exit": "early_exit_package",
            "to_early_exit": "early_exit",
            "to_keras": "keras_file",
            "to_litert": "litert",
            "to_mixed": "mixed",
            "to_saved_model": "saved_model",
        },
    )
