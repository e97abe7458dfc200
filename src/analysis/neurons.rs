//! From a feature to its neurons and from a neuron to its features.
