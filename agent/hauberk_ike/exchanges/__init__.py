"""The exchanges of RFC 7296 section 1, one module each.

A module has the initiator's side as a small object (`exchange.Exchange`: `build` the request, `process` the answer,
`abandon` when there will be none) and the responder's as a function `answer`. A further exchange is a further module.
"""
