import io

from kdtoolkit.training import progress


def test_time_left_is_extrapolated_from_this_process(monkeypatch):
    """Resumed at epoch 4 of 10; two epochs took 20 s, so four more take 40 s."""
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    stream = io.StringIO()
    bar = progress.Progress(10, stream)
    bar.begin("generation 0/0", 0)
    for epoch in (4, 5):
        bar.on_epoch_begin(epoch)
        now += 10
        bar.on_epoch_end(epoch, {"loss": 0.5, "accuracy": 0.75, "other": 1})
    assert stream.getvalue().splitlines()[1] == (
        "generation 0/0  epoch 6/10 [############........] loss 0.500  accuracy 0.750  0:40 left"
    )
