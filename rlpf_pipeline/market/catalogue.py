"""What the businesses of the simulated market sell: eight industries of six products, in words that fit sentences.

Grammar the templates in `texts.py` rely on: `name` is a plural noun phrase; `action` an imperative; a fact follows the
name ("rye loaves *baked before dawn*"); a benefit is a verb phrase in its base form ("want to *eat better bread*"),
a pain a noun phrase ("tired of *soggy crusts*"), an audience a plural noun. None of them says "you" or holds a digit:
second person and numbers are matters of style and offer, not of the product.
"""

from __future__ import annotations

from typing import NamedTuple


class Product(NamedTuple):
    name: str
    action: str
    facts: tuple[str, ...]
    benefits: tuple[str, ...]
    audiences: tuple[str, ...]
    pains: tuple[str, ...]


class Industry(NamedTuple):
    """`contact` are imperatives that take the brand as object; `suffixes` end a business name."""

    name: str
    suffixes: tuple[str, ...]
    contact: tuple[str, ...]
    urgency: tuple[str, ...]
    products: tuple[Product, ...]


SHOP = ("Visit", "Stop by", "Come to")
SERVICE = ("Call", "Message", "Book with")


def product(name: str, action: str, facts: str, benefits: str, audiences: str, pains: str) -> Product:
    """A product whose alternatives are written in one line, parted by slashes."""
    return Product(name, action, *(tuple(part.split(" / ")) for part in (facts, benefits, audiences, pains)))


INDUSTRIES = (
    Industry(
        "Bakery",
        ("Bakery", "Bakehouse", "Bread Co", "Oven"),
        SHOP,
        ("They sell out by noon.", "Shelves empty early.", "Only until the oven cools."),
        (
            product("sourdough loaves", "order a loaf",
                    "baked before dawn / made with local flour / with a crisp dark crust",
                    "enjoy real bread at breakfast / taste a proper crust again / fill the kitchen with a warm smell",
                    "early risers / home cooks", "bland supermarket bread / soggy crusts"),
            product("birthday cakes", "order a cake",
                    "decorated by hand / filled with fresh cream / in chocolate and lemon",
                    "make a birthday special / surprise the whole table / skip a night of baking",
                    "busy parents / party hosts", "dry party cakes / last-minute baking"),
            product("butter croissants", "try a warm croissant",
                    "rolled by hand / with flaky golden layers / warm from the oven",
                    "start the morning with a treat / slow down over coffee / bring a little Paris home",
                    "commuters / coffee lovers", "stale pastries / skipped breakfasts"),
            product("cinnamon rolls", "grab a box of rolls",
                    "with soft sticky centres / iced while still warm / baked in small trays",
                    "make the office smile / warm up a cold morning / share something sweet",
                    "office teams / families", "boring meeting snacks / grey mornings"),
            product("gluten-free muffins", "try a muffin",
                    "made in a separate kitchen / with ripe blueberries / sweetened with honey",
                    "eat cake without worry / pack a safe lunch treat / enjoy baking that tastes right",
                    "coeliacs / careful eaters", "crumbly gluten-free cakes / reading every label"),
            product("wedding cakes", "book a cake tasting",
                    "with sugar flowers / stacked in three tiers / designed from a sketch",
                    "wow every guest / cut a cake worth photographing / cross the cake off the list",
                    "engaged couples / wedding planners", "plain hotel cakes / wedding stress"),
        ),
    ),
    Industry(
        "Bookshop",
        ("Books", "Bookshop", "Pages", "Reading Room"),
        SHOP,
        ("Copies go fast.", "Only while the shelf lasts.", "The display ends on Sunday."),
        (
            product("crime novels", "pick up a thriller",
                    "chosen by real readers / with twists on every page / from new and classic authors",
                    "stay up past midnight / solve a murder from the sofa / find the next great detective",
                    "thriller fans / night readers", "predictable plots / endless scrolling"),
            product("picture books", "choose a picture book",
                    "with bright painted pages / for small hands / printed on thick paper",
                    "make bedtime calm / raise a little reader / swap screens for stories",
                    "young parents / grandparents", "bedtime battles / too much screen time"),
            product("cookbooks", "browse our cookbooks",
                    "with simple weeknight recipes / tested by home cooks / full of colour photos",
                    "cook dinner without stress / try one new dish a week / get more from the oven",
                    "home cooks / students", "the same three dinners / expensive takeaways"),
            product("travel guides", "find a guide", "with clear maps / written by locals / small enough for a pocket",
                    "plan a trip in an evening / find the quiet beaches / eat where the locals eat",
                    "weekend travellers / backpackers", "tourist traps / dead phone batteries"),
            product("second-hand paperbacks", "browse the paperback shelves",
                    "in good clean shape / sorted by mood / stacked to the ceiling",
                    "read more for less / discover a forgotten author / fill a shelf on a small budget",
                    "bookworms / students", "pricey new releases / empty shelves"),
            product("book club evenings", "join a book club",
                    "with tea and cake / led by local authors / on the first Monday",
                    "meet other readers / finish a book each month / talk about more than work",
                    "new neighbours / curious readers", "lonely evenings / half-read books"),
        ),
    ),
    Industry(
        "Fitness studio",
        ("Fitness", "Studio", "Gym", "Movement"),
        ("Visit", "Join", "Message"),
        ("Mats fill up fast.", "Only a few places left.", "Sign-up closes on Friday."),
        (
            product("yoga classes", "book a class", "in a warm quiet room / for every body / before and after work",
                    "ease a stiff back / sleep better at night / find an hour of calm",
                    "beginners / desk workers", "aching shoulders / restless nights"),
            product("spin classes", "reserve a bike", "with loud music / in under an hour / led by friendly coaches",
                    "sweat out a long day / build strong legs / have fun while training",
                    "cyclists / busy workers", "dull treadmills / skipped workouts"),
            product("boxing lessons", "try a boxing round",
                    "with gloves provided / in small groups / taught by former fighters",
                    "let off steam / feel strong and quick / learn to punch properly",
                    "beginners / stressed workers", "boring gyms / pent-up stress"),
            product("pilates courses", "book a mat", "on real reformers / with six people a class / guided by a physio",
                    "stand taller / recover after a baby / strengthen a weak core",
                    "new mothers / runners", "back pain / poor posture"),
            product("running groups", "join a run", "along the river / at every pace / on Tuesday evenings",
                    "run a first race / keep going in the rain / make friends on the road",
                    "new runners / early birds", "lonely jogs / lost motivation"),
            product("strength sessions", "book a session",
                    "with a personal plan / for people over fifty / with careful coaching",
                    "lift shopping with ease / stay steady on the stairs / feel ten years younger",
                    "older adults / careful starters", "weak knees / crowded weight rooms"),
        ),
    ),
    Industry(
        "Home repair",
        ("Plumbing", "Repairs", "Home Services", "Builders"),
        SERVICE,
        ("Winter slots fill up fast.", "Only a few visits left this week.", "The diary closes on Friday."),
        (
            product("boiler repairs", "book a boiler check",
                    "done the same day / with clear written quotes / by licensed engineers",
                    "keep the house warm / cut the heating bill / get hot showers back",
                    "homeowners / landlords", "cold radiators / freezing showers"),
            product("roof repairs", "ask for a roof check",
                    "with slate and tile / finished before the rain / with photos of the work",
                    "stop leaks for good / sleep through a storm / protect the attic",
                    "homeowners / farm owners", "buckets under the roof / missing tiles"),
            product("kitchen fittings", "request a kitchen visit",
                    "measured to the inch / with oak and steel / installed in a week",
                    "cook in a brighter room / find space for every pan / open up a dark kitchen",
                    "families / keen cooks", "jammed drawers / cramped counters"),
            product("drain cleanings", "call for a drain check", "done by camera / without digging / on weekends too",
                    "get the sink running / lose the bad smell / avoid a flooded floor",
                    "tenants / restaurant owners", "blocked sinks / slow showers"),
            product("window replacements", "ask for a quote", "with double glass / fitted in a day / in wood or steel",
                    "keep out street noise / save heat in winter / brighten the front room",
                    "city residents / owners of old houses", "cold draughts / noisy streets"),
            product("painting jobs", "request a colour plan",
                    "with two clean coats / finished on time / in low-odour paint",
                    "refresh a tired room / come home to bright walls / get a house ready to sell",
                    "home sellers / new owners", "peeling paint / messy painters"),
        ),
    ),
    Industry(
        "Pet care",
        ("Pets", "Paws", "Pet Care", "Tails"),
        ("Visit", "Message", "Call"),
        ("Holiday places fill up fast.", "Only a few spots left this week.", "Weekends go first."),
        (
            product("dog walks", "book a walk", "in small friendly groups / through the woods / with photo updates",
                    "come home to a calm dog / work late without guilt / keep a puppy happy",
                    "dog owners / long-shift workers", "chewed shoes / guilty lunch breaks"),
            product("grooming sessions", "book a wash and trim",
                    "with gentle shampoo / for nervous dogs / with nail trimming",
                    "keep the sofa free of hair / bring back a shiny coat / make bath time easy",
                    "dog owners / owners of fluffy breeds", "matted fur / muddy bathrooms"),
            product("cat sitting visits", "reserve a cat sitter",
                    "by patient sitters / twice a day / with play and cuddles",
                    "travel without worry / keep a cat at home / relax on holiday",
                    "cat owners / weekend travellers", "cold kennels / begging the neighbours"),
            product("puppy classes", "join a puppy class",
                    "with treats and praise / in a safe hall / for the first months",
                    "teach a puppy to sit / enjoy walks without pulling / stop the barking",
                    "new owners / families", "sore arms / chewed carpets"),
            product("raw food boxes", "order a tasting box",
                    "made from local meat / delivered frozen / with no fillers",
                    "settle a sensitive stomach / fill the bowl with real meat / see a brighter coat",
                    "careful owners / breeders", "dusty kibble / itchy skin"),
            product("aquarium kits", "see our aquariums",
                    "with quiet filters / ready in an afternoon / with live plants",
                    "start a calm hobby / give children a first pet / brighten a dull corner",
                    "children / apartment dwellers", "cloudy water / noisy pumps"),
        ),
    ),
    Industry(
        "Garden centre",
        ("Gardens", "Nursery", "Garden Centre", "Plants"),
        SHOP,
        ("Planting season is short.", "Only while the pots last.", "The sale ends on Sunday."),
        (
            product("tomato seedlings", "pick up a tray", "grown without sprays / in sweet old kinds / ready to plant",
                    "eat tomatoes off the vine / grow lunch on a balcony / teach children to garden",
                    "balcony gardeners / families", "tasteless tomatoes / bare balconies"),
            product("rose bushes", "choose a rose", "with a strong scent / in red and cream / hardy in frost",
                    "fill the garden with scent / cut roses all summer / cover an ugly fence",
                    "keen gardeners / new homeowners", "dull borders / bare fences"),
            product("lawn kits", "order a lawn kit", "with seed and feed / for shade or sun / with a simple guide",
                    "get a thick green lawn / fix bare patches / enjoy the garden barefoot",
                    "new homeowners / football families", "brown patches / stubborn moss"),
            product("indoor plants", "see our indoor plants", "in clay pots / happy in low light / easy to keep alive",
                    "bring life to a dark room / breathe easier at work / keep a plant alive at last",
                    "office workers / renters", "dying houseplants / gloomy corners"),
            product("garden plans", "book a garden visit", "drawn by hand / for small yards / with plants that last",
                    "turn a yard into a retreat / enjoy summer outside / make the most of a small plot",
                    "city residents / new homeowners", "weedy yards / wasted corners"),
            product("herb boxes", "order a herb box", "with basil and thyme / cut on the day / planted in cedar wood",
                    "season dinner from the window / save on packet herbs / cook with fresh basil",
                    "home cooks / renters", "wilted packet herbs / dull dinners"),
        ),
    ),
    Industry(
        "Beauty salon",
        ("Salon", "Hair & Beauty", "Beauty Room", "Skin Studio"),
        ("Visit", "Call", "Book with"),
        ("Saturdays fill up fast.", "Only a few chairs left.", "The offer ends on Friday."),
        (
            product("haircuts", "book a haircut", "with a head massage / done without rush / by senior stylists",
                    "leave with a fresh look / style hair in five minutes / feel good on Monday",
                    "busy parents / professionals", "split ends / rushed haircuts"),
            product("facials", "book a facial", "with plant oils / for sensitive skin / in a quiet room",
                    "wake up tired skin / glow without makeup / switch off for an hour",
                    "tired parents / brides", "dry skin / dull winter faces"),
            product("manicures", "reserve a nail table", "with long-lasting gel / in forty colours / done at lunch",
                    "keep nails neat for weeks / brighten a grey week / treat tired hands",
                    "office workers / brides", "chipped nails / rough hands"),
            product("massages", "book a massage", "with warm oil / for sore backs / by trained therapists",
                    "melt a week of stress / loosen tight shoulders / sleep deeply tonight",
                    "desk workers / athletes", "stiff necks / tense shoulders"),
            product("brow treatments", "try a brow shaping", "shaped by thread / tinted to match / done over coffee",
                    "frame the face / save time each morning / look awake",
                    "early risers / students", "patchy brows / shaky tweezers"),
            product("bridal makeup trials", "book a makeup trial",
                    "with photos to compare / for every skin tone / at home or here",
                    "feel calm on the big day / look right in every photo / find the perfect shade",
                    "brides / bridesmaids", "streaky makeup / wedding morning panic"),
        ),
    ),
    Industry(
        "Tutoring school",
        ("Tutors", "Learning", "School of Music", "Academy"),
        SERVICE,
        ("The term starts soon.", "Only a few seats left.", "Enrolment closes on Friday."),
        (
            product("piano lessons", "book a trial lesson",
                    "on a real grand piano / for all ages / with patient teachers",
                    "play a favourite song / surprise the family at Christmas / read music with ease",
                    "children / late starters", "dusty keyboards / boring scales"),
            product("maths lessons", "ask for a trial hour", "in small steps / before the exams / with weekly reports",
                    "pass the exam / enjoy numbers again / raise a grade by summer",
                    "pupils / worried parents", "homework tears / bad grades"),
            product("Spanish courses", "join a Spanish group",
                    "with native speakers / around a kitchen table / in the evening",
                    "order dinner in Spanish / chat on holiday / speak from the first day",
                    "travellers / curious adults", "grammar drills / silent holidays"),
            product("guitar lessons", "try a guitar lesson", "from rock to folk / with loan guitars / one to one",
                    "strum a song by Friday / play around the campfire / form a first band",
                    "teenagers / music lovers", "sore fingers / lonely practice"),
            product("coding camps", "reserve a camp seat",
                    "with robots to build / in the school holidays / for curious kids",
                    "build a first game / turn screen time into skill / make new friends",
                    "kids / working parents", "empty holidays / passive screen time"),
            product("essay workshops", "book a workshop",
                    "led by a journalist / with line-by-line feedback / on Saturday mornings",
                    "write a clear essay / beat the blank page / get into a good college",
                    "students / applicants", "blank pages / red ink"),
        ),
    ),
)  # fmt: skip


def word_list(words: str) -> tuple[str, ...]:
    return tuple(words.split())


LEADS = word_list(
    "Maple Harbour Finch Olsen Juniper Okafor Birch Castle Willow Mendez Clover Stone Harper Lark Novak Amber Foster "
    "Cedar Robin Patel Hazel Bridge Rossi Ivy Mason Copper Dalton Fern Quinn Silver Moreno Orchard Tanner Violet Webb "
    "Heron Sato Bramble Keller Sunny Porter Otter Lindgren Meadow Archer Rowan Baptiste Pebble Carver Thistle Duarte "
    "Lantern Hughes Magnolia Novello Acorn Jensen Coral Bishop Saffron Tate Wren Kowalski Anchor Marlow Poppy Singh "
    "Beacon Ellis Sparrow Garcia Linden Whitby Ember Nolan Pine Laurent Swift Becker Daisy Holt Raven Costa Walnut "
    "Fraser Otis Plum"
)

TOWNS = word_list(
    "Ashford Millbrook Riverton Oakdale Fairview Kingsley Brookfield Westport Hillcrest Lakewood Greenfield Milton "
    "Clayton Harlow Dover Linwood Easton Salem Bristol Newport Arlington Burton Camden Dayton Elgin Florence "
    "Georgetown Hamilton Jackson Kent Lexington Marion Norfolk Oxford Preston Richmond Stafford Trenton Vernon "
    "Windsor"
)
