from pytorch_lightning.loggers import CSVLogger

from guided_diffusion.evaluation.publish import publish_results


def test_a_publish_function_can_be_registered_for_a_logger_class(fabricate, tmp_path):
    class Own(CSVLogger):
        published = None

    class Derived(Own):
        pass

    @publish_results.register(Own)
    def publish(logger, results, folder):
        logger.published = results, folder

    logger, results = Derived(tmp_path), fabricate([1.0])
    publish_results(logger, results, tmp_path)
    assert logger.published == (results, tmp_path)
    assert not list(tmp_path.iterdir())
