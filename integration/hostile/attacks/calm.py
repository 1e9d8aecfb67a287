"""No attack: the cost of the machine and the suite alone, for comparison."""

from attack import Attack


class Calm(Attack):
    pass
