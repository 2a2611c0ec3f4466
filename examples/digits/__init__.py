"""A handwritten digit classifier in int8: two convolutions and a dense layer, trained here.

``train.py`` makes ``digits_int8.npz`` (weights, quantization parameters, held-out images);
``network.py`` reads that file and runs it in plain numpy integers.

The images are from the UCI Machine Learning Repository's "Optical Recognition of Handwritten
Digits" (E. Alpaydin, C. Kaynak, 1998, https://doi.org/10.24432/C50P49, licence CC BY 4.0), its test
part as distributed with scikit-learn (BSD-3-Clause). 360 of the 1,797 images are stored here,
unchanged: the ones not trained on.
"""
