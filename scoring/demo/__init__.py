"""`make demo`: nights of real flights through the whole stack, from training to a promoted challenger."""
