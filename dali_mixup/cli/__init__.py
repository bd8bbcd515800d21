"""The command ``dali-mixup``: look at what is mixed, time it, examine the machine."""
