"""`gateway doctor`: looks at a configuration, and at what a node with it would find, and says what to do."""
