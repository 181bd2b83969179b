"""Growth: a model goes on from an earlier one, with new ids, new features, new tasks."""
