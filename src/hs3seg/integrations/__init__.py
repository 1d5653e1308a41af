"""Small helpers for other people's training loops; each file asks for its library only when it is imported.

`hs3seg.integrations.lightning` and `hs3seg.integrations.transformers` need the extras `lightning` and
`transformers`; `hs3seg.integrations.data` needs none.
"""
