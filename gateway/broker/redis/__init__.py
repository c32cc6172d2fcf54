"""The engine on Redis: any number of nodes become one system."""
