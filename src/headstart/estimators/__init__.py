"""The pipeline as scikit-learn estimators, one file a task.

>>> from headstart import TransferClassifier
>>> model = TransferClassifier().fit("photos/")  # doctest: +SKIP
>>> model.predict(["a.jpg", "b.jpg"])  # doctest: +SKIP
>>> model.evaluate("test/")["accuracy"], model.save("model/")  # doctest: +SKIP

Each has the settings (`Settings`, fields and nothing else) and, once fitted, a `Fit` that answers, scores and saves;
what is left to a class is the form of its labels and answers.
"""
