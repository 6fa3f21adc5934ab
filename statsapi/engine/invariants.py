"""What must always hold in here, said where it is checked."""


def require(holds: bool, else_message: str) -> None:
    """assert, but also under python -O."""
    if not holds:
        raise AssertionError(else_message)
