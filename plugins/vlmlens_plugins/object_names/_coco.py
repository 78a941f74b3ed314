"""The 80 kinds of objects of COCO, and what people call them.

The kinds are those of T.-Y. Lin et al. (2014, arXiv 1405.0312), as the instance files spell them.
The synonyms were written for vlmlens: names that mean this kind and, as a rule, no other. Plurals
that follow a rule are found without being listed (`plurals`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

COCO: Final = "coco"
"""The name of this table where a file could be given."""

_NAMES = """
person: people, man, woman, boy, girl, child, children, kid, toddler, baby, infant, adult,
    teenager, lady, gentleman, guy, pedestrian, passenger, rider, cyclist, driver, skier,
    snowboarder, surfer, skater, skateboarder, swimmer, batter, pitcher, catcher, umpire, player,
    baseball player, football player, basketball player, referee, athlete, officer, policeman,
    policewoman, soldier, fireman, worker, chef, waiter, waitress, student, teacher, doctor,
    nurse, farmer, bride, groom, mother, father, brother, sister, grandmother, grandfather,
    spectator, tourist, shopper, someone, somebody, individual
bicycle: bike, tricycle, mountain bike
car: automobile, sedan, taxi, cab, minivan, van, jeep, suv, convertible, limousine, limo
motorcycle: motorbike, motor bike, motor cycle, moped, scooter, motor scooter, dirt bike
airplane: aeroplane, plane, aircraft, jet, jetliner, airliner, biplane, seaplane, passenger jet,
    air plane
bus: minibus, double decker, school bus
train: locomotive, tram, streetcar, passenger train
truck: lorry, pickup, pickup truck, fire truck, firetruck, fire engine
boat: ship, sailboat, canoe, kayak, yacht, ferry, rowboat, speedboat, motorboat, barge, gondola
traffic light: traffic signal, stoplight, stop light
fire hydrant: hydrant
stop sign
parking meter
bench: pew, park bench
bird: seagull, gull, pigeon, duck, goose, geese, swan, parrot, owl, eagle, hawk, crow, sparrow,
    pelican, flamingo, ostrich, peacock, rooster, hen, baby bird, adult bird
cat: kitten, kitty, baby cat, adult cat
dog: puppy, pup, poodle, terrier, bulldog, dachshund, labrador, retriever, hound, sheepdog,
    baby dog, adult dog
horse: pony, foal, stallion, mare, baby horse, adult horse
sheep: lamb, ewe, baby sheep, adult sheep
cow: cattle, calf, bull, ox, oxen, heifer, steer, baby cow, adult cow
elephant: baby elephant, adult elephant
bear: polar bear, grizzly, baby bear, adult bear
zebra: baby zebra, adult zebra
giraffe: baby giraffe, adult giraffe
backpack: rucksack, knapsack
umbrella: parasol
handbag: purse
tie: necktie, bow tie, bowtie
suitcase: suit case, luggage
frisbee: flying disc
skis: ski
snowboard: snow board
sports ball: ball, soccer ball, football, basketball, baseball, tennis ball, volleyball
kite
baseball bat
baseball glove: baseball mitt, catcher's mitt
skateboard: skate board
surfboard: surf board
tennis racket: racket, racquet, tennis racquet
bottle: wine bottle, water bottle, beer bottle
wine glass: wineglass
cup: mug, coffee cup, teacup
fork
knife: pocketknife
spoon
bowl
banana
apple
sandwich: hamburger, burger, cheeseburger, panini
orange
broccoli
carrot
hot dog: hotdog
pizza
donut: doughnut
cake: cupcake, cheesecake, birthday cake
chair: armchair, stool, rocking chair
couch: sofa, loveseat
potted plant: houseplant, house plant
bed: bunk bed
dining table: table, desk, coffee table
toilet: urinal, toilet seat
tv: television, television set, tv set
laptop: laptop computer, notebook computer
mouse: computer mouse, mice
remote: remote control
keyboard: computer keyboard
cell phone: cellphone, mobile phone, smartphone, phone, telephone
microwave: microwave oven
oven: stove
toaster
sink: washbasin
refrigerator: fridge, freezer
book: textbook
clock: clock tower, alarm clock
vase
scissors: pair of scissors
teddy bear: teddybear, teddy
hair drier: hair dryer, hairdryer, blow dryer
toothbrush: tooth brush
"""

OTHERS: Final[Sequence[str]] = (
    "train track", "train station", "bus stop", "bus station", "car park", "home plate",
    "baby animal", "adult animal", "baby cub", "adult cub", "baseball field", "baseball game",
    "baseball cap", "football field", "football game",
    "basketball court", "volleyball court", "orange juice", "apple pie",
    "orange color", "orange colour", "hot dog bun", "ski slope", "ski resort", "ski lift",
    "boat house", "horse carriage", "book shelf", "computer mouse pad",
)  # fmt: skip
"""Names whose words are those of a kind, and that mean something else."""


def _kinds() -> dict[str, tuple[str, ...]]:
    found = {}
    for line in _NAMES.replace("\n    ", " ").strip().splitlines():
        name, _, more = line.partition(":")
        found[name.strip()] = tuple(one.strip() for one in more.split(",") if one.strip())
    return found


KINDS: Final[Mapping[str, Sequence[str]]] = _kinds()
"""By kind, its other names."""
