"""How a program ended."""


def status_of(main, words):
    """The exit status of a program's main, also where the parser ends it."""
    try:
        return main([str(word) for word in words])
    except SystemExit as stop:
        return stop.code
