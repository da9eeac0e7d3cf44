"""What the programs do, once it is clear that they have something to do: importing a task takes seconds."""
