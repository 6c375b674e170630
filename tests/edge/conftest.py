import pytest

from kdtoolkit.export.early_exit import to_early_exit
from tests.edge import networks


@pytest.fixture(scope="session")
def stages():
    return networks.build_stages()


@pytest.fixture(scope="session")
def model(stages, tmp_path_factory):
    """Path of a packaged classifier."""
    path = tmp_path_factory.mktemp("model") / "model.tflite"
    to_early_exit(stages, path, networks.PREPROCESSING, **networks.ATTRIBUTES)
    return path
