"""Nothing breaks: the usual load, with which the other scenarios are compared."""

from loadtests.scenarios.scenario import Leg, Scenario, Stretch

SCENARIO = Scenario(
    name="steady",
    about="reads, writes and bulk reads at an even rate, and nothing breaks",
    legs=(
        Leg("steady", seconds=45, mix="http=6,sdk=3,writer=1,bulk=1", stretches=(Stretch("steady", 12, 45),)),
    ),
)
