"""The agent: one node's identity, sessions with its peers, and states and policies in its kernel.

Start reading at hauberk_agent.agent; hauberk_agent.cli starts it.
"""
