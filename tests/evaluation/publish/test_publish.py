from pytorch_lightning.loggers import CSVLogger

from guided_diffusion.evaluation.publish import publish_results


def test_a_class_of_loggers_can_have_a_function_of_its_own(fabricate, tmp_path):
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
