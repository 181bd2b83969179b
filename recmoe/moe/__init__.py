"""Mixture of experts: layers, gates, architectures, balance."""
