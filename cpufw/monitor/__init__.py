"""QMP and HMP: a machine as management tools and people drive it while it runs."""
