"""Nothing is attacked: what the machine and the suite themselves cost, to compare the others with."""

from attack import Attack


class Calm(Attack):
    pass
