"""``python -m dali_mixup`` and ``dali-mixup``."""


def main() -> None:
    """Run the command; what it needs is an extra of the package."""
    try:
        from dali_mixup.cli.app import app
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"the command needs {error.name}, which is missing: pip install 'dali-mixup[cli]'"
        ) from error
    app(prog_name="dali-mixup")


if __name__ == "__main__":
    main()
