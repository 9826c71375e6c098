"""Guesses at encodings."""

import pytest

from trainer.data import encoding_guess

TEXTS = {
    "pl": [
        "Film był naprawdę świetny, a gra aktorów zrobiła na mnie ogromne wrażenie.",
        "Nie podobało mi się zakończenie, było zbyt długie i nudne.",
        "Książka jest dużo lepsza niż ten film.",
        "Zdjęcia piękne, ale scenariusz słaby i przewidywalny.",
        "Obejrzałem go już trzy razy i wciąż się śmieję.",
        "Żenujące dialogi, szkoda czasu i pieniędzy.",
        "Reżyser wiedział, co chce powiedzieć widzom.",
        "Muzyka była najmocniejszą stroną tej opowieści.",
        "Poszliśmy do kina całą rodziną i wszyscy byli zadowoleni.",
        "Nigdy więcej nie pójdę na film tego reżysera.",
    ],
    "cs": [
        "Tento film se mi opravdu líbil, herci byli skvělí.",
        "Příběh je nudný a příliš dlouhý.",
        "Kniha byla mnohem lepší než tento film.",
        "Nejhorší film, jaký jsem kdy viděl.",
        "Krásná hudba a úžasná kamera.",
        "Režisér věděl, co chce divákům říct.",
        "Děj je předvídatelný, ale herecké výkony výborné.",
        "Smál jsem se od začátku až do konce.",
        "Škoda peněz za vstupenku.",
        "Už nikdy se na něj nechci dívat.",
    ],
    "hu": [
        "Nagyon tetszett a film, a színészek kiválóan játszottak.",
        "A történet unalmas és túl hosszú volt.",
        "A könyv sokkal jobb volt, mint a film.",
        "Ez a legrosszabb film, amit valaha láttam.",
        "Gyönyörű zene és csodálatos képek.",
        "A rendező tudta, mit akar mondani a nézőknek.",
        "Kár volt érte a pénzért és az időért.",
        "Végig nevettem az elejétől a végéig.",
        "Őszintén szólva többet vártam tőle.",
        "Soha többé nem nézem meg.",
    ],
    "tr": [
        "Film gerçekten çok güzeldi, oyuncular harikaydı.",
        "Hikâye sıkıcı ve çok uzundu.",
        "Kitap filmden çok daha iyiydi.",
        "Şimdiye kadar izlediğim en kötü film.",
        "Müzikler güzel ama senaryo zayıf.",
        "Yönetmen izleyiciye ne anlatmak istediğini biliyor.",
        "Baştan sona kadar güldüm.",
        "Paramı ve zamanımı boşa harcadım.",
        "Oyunculuk başarılı, görüntüler muhteşem.",
        "Bir daha asla izlemem.",
    ],
    "lt": [
        "Filmas buvo tikrai puikus, aktoriai vaidino nuostabiai.",
        "Istorija nuobodi ir per ilga.",
        "Knyga buvo žymiai geresnė už šį filmą.",
        "Tai blogiausias filmas, kokį esu matęs.",
        "Graži muzika ir nuostabūs vaizdai.",
        "Režisierius žinojo, ką nori pasakyti žiūrovams.",
        "Juokiausi nuo pradžios iki galo.",
        "Gaila pinigų ir sugaišto laiko.",
        "Siužetas nuspėjamas, bet vaidyba įtikinama.",
        "Daugiau niekada jo nežiūrėsiu.",
    ],
    "lv": [
        "Filma bija ļoti laba, aktieri spēlēja lieliski.",
        "Stāsts ir garlaicīgs un pārāk garš.",
        "Grāmata bija daudz labāka par filmu.",
        "Šī ir sliktākā filma, kādu esmu redzējis.",
        "Skaista mūzika un brīnišķīgi skati.",
        "Režisors zināja, ko viņš grib pateikt.",
        "Smējos no sākuma līdz beigām.",
        "Žēl naudas un laika.",
        "Sižets paredzams, bet aktierspēle pārliecinoša.",
        "Vairs nekad to neskatīšos.",
    ],
    "ar": [
        "كان الفيلم رائعا جدا والممثلون ممتازون.",
        "القصة مملة وطويلة جدا.",
        "الكتاب أفضل بكثير من الفيلم.",
        "هذا أسوأ فيلم شاهدته في حياتي.",
        "موسيقى جميلة وتصوير مدهش.",
        "المخرج يعرف ما يريد أن يقوله.",
        "ضحكت من البداية إلى النهاية.",
        "خسارة المال والوقت.",
        "الأداء مقنع ولكن الأحداث متوقعة.",
        "لن أشاهده مرة أخرى.",
    ],
    "ru": [
        "Этот фильм очень хороший, актёры сыграли прекрасно.",
        "История скучная и слишком длинная.",
        "Книга намного лучше фильма.",
        "Худший фильм, который я видел.",
        "Прекрасная музыка и замечательная съёмка.",
        "Режиссёр знал, что хочет сказать.",
        "Смеялся от начала до конца.",
        "Жаль денег и времени.",
        "Очень хорошо",
        "Больше никогда не буду смотреть.",
    ],
    "fr": [
        "Un café très agréable, je recommande.",
        "Ce film est très décevant, même si l’acteur est bon.",
        "L'histoire est ennuyeuse et beaucoup trop longue.",
        "À éviter à tout prix, quel gâchis !",
        "Une musique magnifique et des images à couper le souffle.",
        "J'ai adoré du début à la fin.",
        "Le scénario est prévisible mais les acteurs sont formidables.",
        "Déçu",
        "Ça ne vaut pas le prix du billet.",
        "Où est passé le talent du réalisateur ?",
    ],
    "de": [
        "Der Film ist schön, aber für mich viel zu lang.",
        "Größe überzeugt.",
        "Die Geschichte ist langweilig und völlig vorhersehbar.",
        "Ich würde ihn nicht noch einmal anschauen.",
        "Großartige Schauspieler und wunderschöne Musik.",
        "Schade um das Geld für die Eintrittskarte, überflüssig.",
        "Das Buch war viel besser, natürlich.",
        "Müll",
        "Über zwei Stunden Langeweile.",
        "Äußerst spannend bis zum Schluß.",
    ],
    "es": [
        "La película es muy buena, la recomiendo sin dudarlo.",
        "¡Qué aburrida! No la volvería a ver.",
        "El guión es débil pero la actuación está bien.",
        "Me encantó la música y el diseño de los años treinta.",
        "Pésima, una pérdida de tiempo.",
        "El niño actúa mejor que los demás.",
        "¿Cómo pudieron hacer algo así?",
        "Una historia increíble y emocionante, llena de corazón.",
        "También me reí mucho al final.",
        "No está mal, aunque esperaba más.",
    ],
    "it": [
        "Il film è bellissimo, però un po' troppo lungo.",
        "Non mi è piaciuto, la storia è noiosa.",
        "Perché l'hanno girato? Non si sa.",
        "Una città magnifica e attori bravissimi, è così.",
        "La qualità delle immagini è ottima.",
        "Più bello del libro.",
        "È il peggior film che abbia visto.",
        "C'è poco da dire, è un capolavoro.",
        "Già visto mille volte.",
        "Un'emozione che non finirà.",
    ],
    "pt": [
        "O filme é muito bom, não percam.",
        "A história é chata e longa demais, não gostei.",
        "A atuação está ótima, mas o roteiro é fraco.",
        "Uma lição de vida, emoção do início ao fim.",
        "Péssimo, perda de tempo.",
        "Não vale o preço do ingresso, infelizmente.",
        "As músicas são lindas e a direção é impecável.",
        "Também achei que faltou coração.",
        "É o pior filme que já vi até hoje.",
        "Você não vai se arrepender.",
    ],
    "sv": [
        "Filmen är mycket bra, skådespelarna är fantastiska.",
        "Tråkig och alldeles för lång.",
        "Boken var bättre än filmen på alla sätt.",
        "Jag skrattade från början till slut, så rolig.",
        "Det här är den sämsta film jag sett.",
    ],
}
ENCODINGS = {
    "pl": ["cp1250", "iso8859_2"],
    "cs": ["cp1250", "iso8859_2"],
    "hu": ["cp1250"],
    "tr": ["cp1254"],
    "lt": ["cp1257"],
    "lv": ["cp1257"],
    "ar": ["iso8859_6", "cp1256"],
    "ru": ["cp1251", "iso8859_5", "koi8_r"],
    "fr": ["cp1252"],
    "de": ["cp1252"],
    "es": ["cp1252"],
    "it": ["cp1252"],
    "pt": ["cp1252"],
    "sv": ["cp1252"],
}


@pytest.mark.parametrize(
    ("language", "encoding"), [(language, one) for language, names in ENCODINGS.items() for one in names]
)
def test_ten_sentences_are_enough_to_tell_the_encoding(language, encoding):
    data = "\n".join(TEXTS[language]).encode(encoding, "ignore")
    assert encoding_guess.guesses(data)[0] == encoding


@pytest.mark.parametrize("text", ["It cost £5.", "I paid 20€.", "It’s “great”", "Déçu", "emoção", "naïve"])
def test_a_lone_sign_or_letter_is_western(text):
    assert encoding_guess.guesses(text.encode("cp1252"))[:2] == ["cp1252", "latin-1"]


def test_an_excerpt_is_at_most_40_printable_characters_of_the_line():
    data = ("first\n" + "x" * 50 + " caf\x07é " + "y" * 50).encode("cp1252")
    shown = encoding_guess.excerpt(data, "cp1252")
    assert "é" in shown and shown.isprintable() and len(shown) <= 40 and "first" not in shown
    assert encoding_guess.excerpt("Un café très agréable\n".encode("cp1252"), "cp1252") == (
        "Un café très agréable"
    )
