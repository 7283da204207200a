"""Letters that look like Latin letters or digits.

Written by scripts/make_look_alikes.py from Unicode's confusables.txt (see UNICODE-LICENSE.txt)
and from the lists in that script; not edited by hand.
"""

# Of scripts that share their letter forms with Latin; the same shape in most fonts.
KIN = {
    "2": "ϨᒿꙄ",
    "3": "ЗӠⳌ𑣊𖼻",
    "4": "Ꮞ𑢯",
    "5": "𑢻",
    "6": "бᏮⳒ𑣕",
    "7": "𐓒𑣆",
    "8": "𐌚",
    "9": "Ⳋ𑢬𑣌𑣖",
    "a": "ΑαАаᎪᗅꓮ𐊠𖽀",
    "b": "ΒВЬᏏᏴᑲᖯᗷꓐ𐊂𐊡𐌁",
    "c": "ϲϹСсᏟⲤⲥꓚꮯ𐊢𐌂𐐕𐐽𐔜",
    "d": "ԁᎠᏧᑯᗞᗪꓒꓓ",
    "e": "ΕЕеҽᎬⴹꓰ𐊆𑢦𑢮",
    "f": "Ϝքᖴꓝ𐊇𐊥𐔥𑢢𑣂",
    "g": "ԌցᏀᏳꓖ",
    "h": "ΗНһհᎻᏂᕼⲎꓧ𐋏",
    "i": "ΙιІіᎥᛁιⲒⵏꓲꙇꭵ𐊊𐌉𑣃𖼨",
    "j": "ͿϳЈјᎫᒍꓙ",
    "k": "ΚКᏦᛕⲔꓗ𐔘",
    "l": "ӀӏᏞᒪⳐꓡ𐐛𐔦𑢣𑢲𖼖",
    "m": "ΜϺМᎷᗰᛖⲘꓟ𐊰𐌑",
    "n": "ΝոռⲚꓠ𐔓",
    "o": "ΟοσОоՕօჿⲞⲟⵔꓳ𐊒𐊫𐐄𐐬𐓂𐓪𐔖𑢵𑣈𑣗𑣠",
    "p": "ΡρϱРрᏢᑭⲢⲣꓑ𐊕",
    "q": "ԛգզⵕ",
    "r": "гᎡᏒᖇᴦⲅꓣꮁ𐒴𖼵",
    "s": "ЅѕՏᏕᏚꓢꮪ𐊖𐐠𐑈𑣁𖼺",
    "t": "ΤТᎢⲦꓔ𐊗𐊱𐌕𑢼𖼊",
    "u": "υՍսᑌꓴ𐓎𐓶𑢸𑣘𖽂",
    "v": "νѴѵᏙᐯⴸꓦꛟꮩ𐔝𑢠𑣀𖼈",
    "w": "ѡԜԝաᎳᏔꓪꮃ",
    "x": "ΧХхᕁᕽᚷⲬⵝꓫ𐊐𐊴𐌗𐔧",
    "y": "ΥγϒУуҮүყᎩᎽⲨꓬ𐊲𑢤𑣜𖽃",
    "z": "ΖᏃꓜꮓ𑢩𑣄",
}

# Of other scripts; read as Latin only inside a Latin word.
STRAY = {
    "l": "۱",
    "o": "۵०০੦૦ଠ୦௦౦೦ഠ൦๐໐ဝ၀ዐ𑓐",
    "u": "ሀ",
    "v": "𑜆",
    "w": "𑜊𑜎𑜏",
}

# Latin letters in another dress; always read as the plain letter.
LATIN = {
    "2": "ƧꝚ",
    "3": "ƷȜꝪꞫ",
    "5": "Ƽ",
    "8": "Ȣȣ",
    "9": "Ꝯ",
    "a": "ɑᴀ🅐🅰🇦",
    "b": "ƄʙꞴ🅑🅱🇧",
    "c": "ᴄ🅒🅲🇨",
    "d": "ᴅ🅓🅳🇩",
    "e": "ᴇꬲ🅔🅴🇪",
    "f": "ẝꜰꞘꞙꬵ🅕🅵🇫",
    "g": "ƍɡɢᶃ🅖🅶🇬",
    "h": "ʜ🅗🅷🇭",
    "i": "ıƖǀɩɪ🅘🅸🇮",
    "j": "ᴊꞲ🅙🅹🇯",
    "k": "ᴋ🅚🅺🇰",
    "l": "ʟ🅛🅻🇱",
    "m": "ᴍ🅜🅼🇲",
    "n": "ɴ🅝🅽🇳",
    "o": "ᴏᴑꬽ🅞🅾🇴",
    "p": "ᴘ🅟🅿🇵",
    "q": "ꞯ🅠🆀🇶",
    "r": "Ʀʀꭇꭈ🅡🆁🇷",
    "s": "ƽꜱ🅢🆂🇸",
    "t": "ᴛ🅣🆃🇹",
    "u": "ʋᴜꞟꭎꭒ🅤🆄🇺",
    "v": "ᴠ🅥🆅🇻",
    "w": "ɯᴡ🅦🆆🇼",
    "x": "Ꭓ🅧🆇🇽",
    "y": "ɣʏᶌỿꭚ🅨🆈🇾",
    "z": "ᴢ🅩🆉🇿",
}

# Of kin scripts, alike to a hurried reader only; read as Latin only inside a Latin word.
LOOSE = {
    "a": "λ",
    "b": "βЂЪвъьђ",
    "c": "ςҫ",
    "d": "δ",
    "e": "εЄЭэє",
    "h": "нњћ",
    "k": "κкќқҡ",
    "m": "мӎ",
    "n": "ήηπИЙийлп",
    "o": "θф",
    "r": "Яя",
    "t": "τт",
    "u": "μЦц",
    "w": "ψωШЩшщѿ",
    "x": "χЖж",
    "y": "ч",
}
