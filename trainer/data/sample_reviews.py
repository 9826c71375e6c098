"""`sample_reviews`: synthetic film reviews from a seeded grammar, to try the trainer without a download.

Word order decides the sentiment. Negative reviews are full of praise that is negated ("anything but clever")
or contradicted ("I expected a clever film; it was dull"); positive ones are full of negated blame. Word
counts are not enough: a model has to respect word order.
"""

import random
import re
import string
from collections.abc import Iterator
from typing import ClassVar

import tensorflow_datasets as tfds

SHORTEST, LONGEST = 10, 600  # tokens: words between spaces, without punctuation
FLIPPED = 0.04  # probability that a label contradicts its text; the best achievable accuracy is 1 - FLIPPED
# Name -> (seed, number of reviews).
SPLITS = {
    "train": (0, 4_000),
    "validation": (1, 1_000),
    "test": (2, 1_000),
}


def _parse(text: str) -> dict[str, tuple[str, ...]]:
    """Reads rules `symbol: template | template ...`, one per line; an indented line continues a rule."""
    rules = re.findall(r"^(\w+):(.*(?:\n .*)*)", text, re.MULTILINE)
    return {
        symbol: tuple(" ".join(template.split()) for template in templates.split("|"))
        for symbol, templates in rules
    }


# `{symbol}` keeps the sentiment of its template, `{!symbol}` inverts it. A template that is listed twice is
# twice as likely.
_RULES = _parse("""
sentence: {remark} | {remark} | {remark} | {remark} | {plot} | {plot} | {plot} | {plot} | {plot} <br /><br />
remark: {opinion}. | {opinion}. | {opinion}. | {opinion}. | {opinion}! | {aside}, {opinion}.
    | {aside}, {opinion}.
aside: in my view | to be honest | for me | I must say | in short | frankly | after all the talk | believe me
    | as a fan of {genre} | this time | all in all | an hour later | with hindsight | in the end | for once
    | to my surprise | as far as I am concerned | let me say it | at the {ordinal} viewing
opinion: {plain} | {plain} | {plain} | {plain} | {negated} | {negated} | {contrast} | {contrast}

plain: {subject} {claim} | {subject} {claim} | {subject} {claim} | {subject} {adjective} and {adjective}
    | I {liked} {this} | I {liked} the {part} | I {liked} the {part} and the {parts} | I would {act}
    | I would {act} | I will {act} | what a {adjective} {film} | it is a {adjective} and {adjective} {film}
    | the {crew} did a {adjective} job | {name} gave a {adjective} performance | it left me {feeling}
    | it left us all {feeling} | I found it {adjective} | {name} was {claim} as the {role}
    | there are some {adjective} {parts} | not only was it {adjective}, it was {adjective} too
    | it was nothing if not {adjective} | we all agreed that {subject} {claim} | I came home {feeling}
    | I can only say that {subject} {claim} | seldom have I seen so {adjective} a {film}
    | you can feel how {adjective} the {part} is | {this} is {adjective}
    | the {part} is {claim} and the {parts} are {claim}

negated: {subject} {not} {!adjective} | {subject} {not} {!adjective} | {subject} {not} {!adjective}
    | {subject} {not} {!idiom} | the {part} wasn't {!adjective} | the {parts} weren't {!adjective}
    | it isn't {!adjective} | I {could_not} {!like} {this} | I {could_not} {!like} the {part}
    | I would {never} {!act} | I would {never} {!act} | nobody could call the {part} {!adjective}
    | it would be wrong to call {this} {!adjective} | I can't say that {subject} {!claim}
    | there is nothing {!adjective} about the {parts} | there is not one {!adjective} scene in it
    | {name} was {not} {!adjective} as the {role} | it never left me {!feeling} | it hardly left me {!feeling}
    | {this} is {not} a {!adjective} {film} | do not think for a moment that {subject} {!claim}
    | nothing about the {part} was {!adjective} | I have yet to meet a {role} who found it {!adjective}
    | without a single {!adjective} moment

contrast: I expected a {!adjective} {film}; it was {claim}
    | I expected it to be {!adjective}, it was {adjective} | some said it was {!claim}; it was {claim}
    | they promised a {!adjective} {film} and made a {adjective} one
    | despite the {!adjective} {part}, {subject} {claim} | it was more {adjective} than {!adjective}
    | although the {part} was {not} {adjective}, {subject} {claim}
    | the {part} was {!adjective}, but {subject} {claim} | it is {adjective}, not {!adjective}
    | {critic} called it {!adjective}, yet {subject} {claim}
    | it looked {!adjective} at first and turned out {adjective}
    | what could have been {!adjective} was {adjective}
    | {subject} {claim}, whatever {critic} said about the {!adjective} {part}
    | it was a {adjective} {film} where I expected a {!adjective} one
    | forget those who call it {!adjective}: {plain}
    | instead of a {!adjective} {film} we got a {adjective} one | {critic} {!liked} it; I {liked} it
    | {subject} {claim} in spite of the {!adjective} {parts}
    | I was told that {subject} {!claim}, but {subject} {claim}
    | my {friend} found it {!adjective}; I found it {adjective}
    | {subject} {claim}, even if the {parts} were {!adjective}
    | a {adjective} {part} made up for the {!adjective} {part}
    | it only seemed {!adjective}: {subject} {claim}

subject: the {part} was | the {part} was | the {parts} were | the {part} and the {parts} were
    | the {part} and the {part} were | {this} was | {this} was | it was | everything about it was
    | the whole {film} was | {name}'s {part} was | the {part} by {name} was | the second half was
    | the {role} was | the opening hour was
claim: {adjective} | {adjective} | {adverb} {adjective} | {adverb} {adjective} | {idiom}
this: this {film} | this {film} | the {film} | this movie | the movie | this one
could_not: didn't | did not | could not | couldn't | can't | could hardly | never could
not: not | not | not | not | hardly | far from | anything but | never | by no means | in no way | nowhere near
    | not at all | not even remotely
never: not | not | not | never | hardly | not ever | never ever | by no means
adverb: very | really | truly | simply | so | quite | utterly | absolutely | rather | just | thoroughly | SO
    | REALLY | from start to finish | remarkably
critic: the critics | one critic | my neighbour | the papers | my old teacher | everyone at work
    | half of the internet | the man behind me | my {friend} | my {friend}
friend: sister | brother | wife | husband | mother | father | cousin | daughter | son | flatmate | uncle
    | aunt | grandmother | best friend

plot: {name} plays a {role} who {deed} in {place}. | a {role} from {place} {deed}.
    | the story follows a {role} and a {role} to {place}. | it runs for {minutes} minutes.
    | we watched it on {day} with my {friend}. | the {film} opens in {place}, where a {role} finds {object}.
    | there is {object} in the {ordinal} act. | I saw it on {day} at {venue}. | the book came out in {year}.
    | I have not read the book. | I had never heard of {name} before. | halfway through, the {role} {deed}.
    | nobody tells the {role} about {object}. | meanwhile, the {role} {deed}.
    | is it the {role} or the {role} who took {object}? | the {role} doesn't trust the {role}.
    | it was filmed in {place} in {year}. | {name} wrote it and {name} directed it.
    | the {role} and the {role} share a house in {place}. | "Where is the {role}?" asks {name}.
    | after {minutes} minutes the {role} {deed}.
    | this is the {ordinal} {film} that {name} has made since {year}.
    | my {friend} bought the tickets (1{digit}.{digit}{digit} euros each).
    | the {role}, played by {name}, {deed}. | the {part} is by {name}.
    | you may know {name} from the {film} about {object}. | then {object} turns up in {place}.
    | we sat in row 1{digit} of {venue}. | the first scene shows {object}; the last one shows {place}.
    | there were {number} people at {venue} on {day}. | years later, a {role} {deed}.
    | {name} has 2{digit} lines in the whole {film}. | it's set in {place}, {year}.
    | a {role} loses {object}, and a {role} {deed}. | at {venue} they showed it twice on {day}.
deed: hides {object} | looks for {object} | steals {object} | falls for a {role} | leaves {place}
    | writes to the {role} | moves to {place} | meets a {role} in {place} | buries {object}
    | runs from the {role} | inherits {object} | opens a shop in {place} | talks to the {role}
    | forgets {object} | comes back to {place} | sells {object}

film: film | movie | picture | feature | comedy | drama | thriller | western | cartoon | sequel | remake
    | film | movie
genre: thrillers | comedies | westerns | silent films | crime stories | musicals | old cartoons
part: animation | plot | story | acting | music | camera work | script | dialogue | ending | pacing
    | photography | editing | lighting | soundtrack | cast | direction | humour | screenplay | opening
    | finale | score | production | set design | voice work | casting | premise | rhythm | mood
parts: graphics | effects | jokes | songs | costumes | characters | actors | chase scenes | performances
    | sets | visuals | stunts | landscapes | twists | dances | flashbacks
crew: director | writers | actors | editor | composer | producers | whole crew | animators | cameraman
name: Marlowe | Ada Finch | Okafor | Lindqvist | Rosa Duarte | Hale | Petrov | Mina Sato | Delacroix | Byrne
    | Castellano | Ivy Thorne | Novak | Abernathy | Quill
role: detective | sailor | widow | teacher | thief | farmer | nurse | painter | soldier | clerk | pilot
    | baker | judge | orphan | spy | butler | waiter | queen | robot | gardener | boxer | priest | student
    | reporter | ghost | driver | lawyer | singer | doctor | twin
place: Lisbon | a village | the desert | Chicago | an old hotel | the mountains | Warsaw | a small harbour
    | the suburbs | a lighthouse | Naples | a border town | the north | an office | Dublin | a boarding school
    | the capital | Iceland | an old mill | the museum
object: a letter | the map | a suitcase | an old radio | the key | a violin | the money | a diary | the dog
    | a photograph | the painting | a red car | a lost watch | the boat | an umbrella | a box of records
    | the ring | a telescope | the will
venue: the Odeon | the festival | a small cinema | the drive-in | my local theatre | the film club
day: Monday | Tuesday | Wednesday | Thursday | Friday | Saturday | Sunday | a rainy Sunday | New Year's Eve
ordinal: first | second | third | fourth | fifth
minutes: 8{digit} | 9{digit} | 1{digit}{digit}
year: 19{digit}{digit} | 19{digit}{digit} | 200{digit} | 201{digit}
number: 1{digit} | 2{digit} | 3{digit}
digit: 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9
""")

_PRAISE = _parse("""
adjective: good | great | cool | wonderful | brilliant | moving | funny | clever | charming | fresh | gripping
    | beautiful | superb | delightful | thrilling | touching | memorable | excellent | fantastic | amazing
    | lovely | stylish | witty | elegant | perfect | inventive | convincing | warm | impressive | splendid
idiom: out of this world | out of this world | a joy | top notch | worth every minute | a real treat
    | a triumph | the best in years | a masterpiece | spot on | a pleasure
liked: loved | enjoyed | liked | admired | adored | really enjoyed | loved
like: love | enjoy | like | admire | adore | recommend
act: recommend this movie | recommend it | recommend this {film} | see it again | watch it twice
    | buy the disc | take my {friend} to it | give it ten stars | praise it to my {friend}
    | recommend the {film} to my {friend}
feeling: smiling | delighted | cheerful | happy | moved | inspired | enchanted | grateful
""")

_BLAME = _parse("""
adjective: bad | awful | terrible | dull | boring | clumsy | flat | stale | weak | ugly | lifeless | tedious
    | forgettable | annoying | painful | silly | poor | horrible | dreadful | pointless | lazy | shallow
    | hollow | messy | predictable | ridiculous | lame | cheap | unbearable | sloppy
idiom: a waste of time | a waste of time | a mess | a bore | below par | a real chore | a failure
    | the worst in years | a disaster | beyond help | an insult
liked: hated | disliked | loathed | resented | despised | really disliked | hated
like: hate | dislike | loathe | resent | despise | fault | mock
act: avoid this movie | avoid it | skip this {film} | switch it off | walk out of it | ask for my money back
    | warn my {friend} about it | give it one star | laugh at it with my {friend}
    | keep my {friend} away from the {film}
feeling: bored | angry | tired | cold | sad | disappointed | empty | annoyed
""")

_GRAMMARS = (_RULES | _BLAME, _RULES | _PRAISE)
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _pick(choices: tuple[str, ...], rng: random.Random) -> str:
    # random() is the one method whose sequence Python promises to keep; choice() is not.
    return choices[int(rng.random() * len(choices))]


def _expand(symbol: str, sentiment: int, rng: random.Random) -> str:
    template = _pick(_GRAMMARS[sentiment][symbol], rng)
    return re.sub(r"{(!?)(\w+)}", lambda slot: _expand(slot[2], sentiment ^ len(slot[1]), rng), template)


def _sentence(symbol: str, sentiment: int, rng: random.Random) -> tuple[str, int]:
    text = re.sub(r"\ba (?=[aeiou])", "an ", _expand(symbol, sentiment, rng))
    return text[0].upper() + text[1:], len(text.translate(_NO_PUNCTUATION).split())


def _write(sentiment: int, rng: random.Random) -> str:
    # A Lomax tail: most reviews are short, a few very long.
    target = min(LONGEST, int(SHORTEST + 80 * ((1 - rng.random()) ** (-1 / 3) - 1)))
    sentences: list[str] = []
    length = 0
    while True:
        opening = len(sentences) < 2
        text, tokens = _sentence("remark" if opening else "sentence", sentiment, rng)
        if not opening and length >= SHORTEST and length + tokens > target:
            return " ".join(sentences)
        sentences.insert(int(rng.random() * (len(sentences) + 1)), text)
        length += tokens


def _reviews_and_truth(*, seed: int, count: int) -> Iterator[tuple[str, int, int]]:
    """Yields (text, label, sentiment); where the label is flipped, it differs from the text's sentiment."""
    rng = random.Random(seed)
    for _ in range(count):
        sentiment = int(rng.random() < 0.5)
        flipped = rng.random() < FLIPPED
        yield _write(sentiment, rng), sentiment ^ flipped, sentiment


def generate_reviews(*, seed: int, count: int) -> Iterator[tuple[str, int]]:
    """Yields `count` synthetic reviews, one at a time.

    The same seed gives the same reviews in every process and Python version; a smaller count gives the first
    ones.

    Yields:
      (ASCII text of 10 to 600 tokens, label: 0 negative or 1 positive).
    """
    for text, label, _ in _reviews_and_truth(seed=seed, count=count):
        yield text, label


class SampleReviews(tfds.core.GeneratorBasedBuilder):
    """The TFDS builder of `sample_reviews`: {"text": string, "label": int64, 0 neg or 1 pos}.

    The reviews are those of `generate_reviews`, in its order. Preparing them takes seconds and no network.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "The first release; other texts are another version."}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=(
                "Synthetic film reviews, written by a seeded grammar: no person wrote them and they judge no "
                "real film. Negation and contrast make the sentiment depend on word order. "
                f"A share of {FLIPPED:.0%} of the labels is flipped on purpose, "
                "which bounds the accuracy that can be reached."
            ),
            features=tfds.features.FeaturesDict(
                {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(names=["neg", "pos"])}
            ),
            supervised_keys=("text", "label"),
            disable_shuffling=True,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, str | int]]]]:
        return {
            name: self._generate_examples(seed=seed, count=count) for name, (seed, count) in SPLITS.items()
        }

    def _generate_examples(self, *, seed: int, count: int) -> Iterator[tuple[int, dict[str, str | int]]]:
        for key, (text, label) in enumerate(generate_reviews(seed=seed, count=count)):
            yield key, {"text": text, "label": label}
