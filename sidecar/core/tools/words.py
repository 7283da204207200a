"""The vocabulary of tool names: what a verb says a tool does, and what its object changes about that.

Names are words of code, not prose: `send_email`, `mailSenden`, `mail-get`. Words are compared whole, in lower case and
without accents; German umlauts are listed both ways (`loeschen`, `loschen`). Rules, in the order of the reading:

- A verb that is hardly ever a noun counts wherever it stands, and several count together: the strictest wins. A word
  that is a noun as often (`post`, `order`, `report`) counts only where the name has no other verb, at its first or last
  place.
- Whatever reaches people cannot be called back, and what is deleted or paid is gone: irreversible.
- To make something new, or to arrange what is there, is reversible; to change a record or the state of something is
  not, unless it is the agent's own material (files, notes, drafts, memory). What is made for people to read (mail,
  comments, posts) is sent. Access, rules, keys, hooks and schedules are standing. Payments, accounts and bookings are
  irreversible also when they are only created.
- Reading and thinking are reversible.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

from sidecar.core.reading import Effect

UNKNOWN: Final = Effect()
READS: Final = Effect(reads=True, reversible=True, known=True)
THINKS: Final = Effect(reversible=True, known=True)
MAKES: Final = Effect(changes=True, reversible=True, known=True)
CHANGES: Final = Effect(changes=True, known=True)
SENDS: Final = Effect(sends=True, known=True)
RUNS: Final = Effect(runs=True, known=True)
LASTS: Final = Effect(changes=True, standing=True, known=True)
OUT: Final = Effect(reads=True, reversible=True, known=True, outward=True)
SENDS_OUT: Final = Effect(sends=True, known=True, outward=True)


def listed(words: str) -> frozenset[str]:
    """The words of a table, for looking up only."""
    return frozenset(words.split())


_DEEDS: Final = {
    "read": READS,
    "think": THINKS,
    "make": MAKES,
    "arrange": MAKES,
    "export": Effect(reads=True, changes=True, reversible=True, known=True),
    "change": CHANGES,
    "delete": CHANGES,
    "pay": CHANGES,
    "send": SENDS,
    "run": RUNS,
    "install": Effect(changes=True, runs=True, known=True),
    "entitle": LASTS,
    "share": Effect(sends=True, changes=True, standing=True, known=True),
    "schedule": LASTS,
}

_VERBS: Final = {
    "read": """
        get read list search find fetch retrieve lookup view show describe inspect browse check verify validate download
        load look scan observe compare analyze analyse summarize summarise extract detect grep glob ls cat stat preview
        examine navigate goto visit scroll screenshot poll discover identify estimate forecast predict explain crawl
        scrape wget ping receive recall count diff audit? query? monitor? review? trace? track? watch? test? access?
        select? peek? head? tail? open? dump? plan? measure? info? status? history? lint?
        lesen abrufen anzeigen zeigen zeige suchen suche finden auflisten laden abfragen pruefen prufen ansehen einsehen
        nachschlagen herunterladen auslesen oeffnen offnen
        lire obtenir recuperer chercher rechercher trouver lister afficher consulter voir telecharger verifier ouvrir
        leer obtener buscar busca encontrar listar mostrar consultar ver descargar verificar recuperar revisar abrir
        leggere leggi ottenere cercare cerca trovare elencare mostrare consultare visualizzare scaricare aprire
        verificare recuperare
        ler obter procurar pesquisar visualizar baixar
        cherche trouve affiche consulta
        lezen lees ophalen haal zoeken zoek vinden tonen toon bekijken opvragen downloaden controleren openen
        """,
    "think": """
        think reflect calculate compute calc convert translate format encode decode hash parse sleep wait noop ponder
        brainstorm echo finish done sequentialthinking thinking? thought? thoughts? reasoning? scratchpad?
        denken nadenken rechnen berechnen warten penser reflechir calculer pensar calcular
        pensare calcolare rekenen
        """,
    "send": """
        send resend reply respond forward tweet retweet publish broadcast notify announce submit upload invite escalate
        dial transmit push ask tell handoff leak deliver post? mail? email? message? msg? text? call? page? chat?
        comment? dispatch? ping? signal? alert? notification? sms? dm? announcement? letter? contact? consult
        fax? remind? hand? nachricht? mitteilung? mitteilen? courriel? correo? mensaje? messaggio? mensagem? meldung?
        senden sende verschicken schicken versenden zusenden antworten beantworten weiterleiten veroeffentlichen
        veroffentlichen benachrichtigen melden einreichen hochladen einladen anrufen uebermitteln ubermitteln
        envoyer envoi envoie repondre reponse? transferer publier notifier diffuser soumettre televerser inviter appeler
        transmettre
        enviar envia responder reenviar publicar notificar avisar invitar subir llamar transmitir remitir mandar
        inviare invia spedire rispondere inoltrare pubblicare notificare avvisare invitare caricare chiamare trasmettere
        mandare
        encaminhar convidar carregar
        verzenden versturen verzend antwoord verstuur sturen stuur beantwoorden antwoorden doorsturen publiceren
        uitnodigen uploaden
        bellen indienen
        """,
    "make": """
        create add new insert write compose make generate produce build prepare draft? report?
        erstellen erstelle anlegen hinzufuegen hinzufugen schreiben schreibe verfassen eintragen erzeugen
        creer ajouter ecrire rediger generer inserer crear anadir agregar escribir redactar generar insertar registrar
        creare crea aggiungere scrivere redigere generare inserire criar adicionar escrever redigir gerar inserir
        cree ajoute anade agrega cria adiciona aggiungi voeg
        maken aanmaken maak toevoegen schrijven schrijf opstellen
        """,
    "arrange": """
        append save store put copy duplicate clone move rename archive unarchive label tag untag mark star unstar pin
        unpin flag bookmark sort restore undo redo backup snapshot commit stage remember memorize memorise zip unzip
        sync mkdir touch annotate highlight categorize categorise organize organise classify import index fork attach
        log? note? memo? journal? record? reminder? todo? appointment? diary? cache?
        speichern notieren vermerken vermerk? notiz? termin? verschieben umbenennen archivieren kopieren markieren
        ablegen anhaengen anhangen protokollieren
        enregistrer noter deplacer renommer archiver copier? marquer classer sauvegarder
        guardar anotar mover renombrar archivar copiar marcar nota?
        salvare annotare spostare rinominare archiviare copiare salvar renomear arquivar
        opslaan noteren verplaatsen hernoemen archiveren kopieren notitie?
        """,
    "export": "export exportieren exporter? exportar esportare exporteren",
    "change": """
        update set change modify patch replace configure enable disable activate deactivate reset cancel approve reject
        confirm accept decline close reopen release revoke assign unassign reassign adjust override unlock block unblock
        ban unban mute unmute silence suppress snooze ack acknowledge dismiss ignore stop start restart reboot shutdown
        suspend pause kill terminate abort merge rebase revert rollback promote demote upgrade downgrade migrate rotate
        click press type? fill drag tap toggle turn resize scale provision reschedule edit unsubscribe restrict withhold
        hide give redirect reroute shelve exclude prescribe administer waive unshare upsert encrypt resolve register
        inject deny opt print swap? lock? apply? sign? switch? limit? triage? resume? skip? train? rate? vote? like?
        aendern andern setzen setze aktualisieren bearbeiten ersetzen konfigurieren aktivieren deaktivieren sperren
        entsperren genehmigen ablehnen bestaetigen bestatigen stornieren absagen abbrechen schliessen schliesen zuweisen
        stoppen beenden beschraenken beschranken umleiten ausblenden quittieren drucken
        modifier? changer mettre definir actualiser remplacer configurer activer desactiver bloquer debloquer approuver
        refuser valider annuler fermer cloturer attribuer arreter confirmer reinitialiser restreindre
        modificar cambiar actualizar establecer fijar reemplazar configurar activar desactivar bloquear aprobar rechazar
        confirmar cancelar anular cerrar asignar detener reiniciar
        modificare cambiare aggiornare impostare sostituire configurare attivare disattivare bloccare approvare
        rifiutare confermare annullare chiudere assegnare fermare
        alterar mudar atualizar substituir ativar desativar aprovar rejeitar fechar encerrar atribuir parar
        aendere schliesse modifie annule actualiza cancela aggiorna modifica atualiza wijzig sluit annuleer
        wijzigen aanpassen bijwerken instellen vervangen configureren activeren deactiveren blokkeren goedkeuren
        afwijzen bevestigen annuleren sluiten toewijzen
        """,
    "delete": """
        delete remove rm del destroy erase wipe purge clear drop truncate unlink trash discard uninstall expunge prune
        evict kick expel shred cleanup
        loeschen loschen loesche entfernen verwerfen supprimer effacer retirer enlever eliminar borrar suprimir quitar
        supprime borra elimina cancella apaga exclui verwijder
        eliminare cancellare rimuovere excluir apagar remover deletar verwijderen wissen
        """,
    "pay": """
        pay transfer withdraw deposit buy purchase sell trade refund charge checkout donate reserve redeem remit
        reimburse mint repay settle book? order? bid? tip? invoice? wire? stake? ship? rent? hire? quote?
        zahlen bezahlen ueberweisen uberweisen kaufen bestellen buchen reservieren erstatten
        payer? virer acheter reserver rembourser pagar transferir comprar pedir reservar reembolsar
        pagare trasferire acquistare comprare ordinare prenotare rimborsare encomendar
        paie paga betaal boek koop bestel
        betalen overmaken kopen boeken reserveren terugbetalen
        """,
    "run": """
        run execute exec eval evaluate spawn launch compile ausfuehren ausfuhren executer ejecutar eseguire executar
        uitvoeren
        """,
    "install": "deploy install installieren deployen installer? instalar installare installeren",
    "entitle": "grant delegate whitelist allowlist authorize? authorise? link? freigeben",
    "share": "share teilen partager compartir condividere compartilhar partilhar delen partage comparte condividi deel",
    "schedule": "schedule? subscribe automate planifier programar agendar inplannen pianificare",
    "vague": """
        manage handle process perform do operate control use interact invoke request
        verwalten gerer administrar gestionar gestire gerenciar beheren
        """,
}
"""Kinds of verbs; a question mark stands behind what is a noun as often. A vague one leaves it to the arguments."""

_OBJECTS: Final = {
    "message": """
        email emails mail mails message messages msg sms dm post posts tweet comment comments reply chat notification
        announcement newsletter fax letter
        nachricht mitteilung courriel correo mensaje messaggio mensagem brief bericht correio
        """,
    "invitation": "participant participants attendee attendees guest guests invitation invite invitee invitees",
    "workspace": """
        file files folder directory note notes draft doc document memory memories todo list cell sheet spreadsheet slide
        bookmark label tag scratchpad notebook canvas snippet page paragraph row column text reminder title content
        entities observations relations knowledge
        datei ordner notiz notizen vermerk entwurf dokument fichier dossier brouillon archivo carpeta nota borrador
        documento bozza cartella arquivo pasta rascunho bestand notitie concept
        """,
    "standing": """
        permission permissions access role roles share sharing acl grant apikey token tokens credential credentials
        webhook webhooks hook hooks rule rules filter filters forwarding autoforward forwarder autoreply autoresponder
        subscription cron crontab cronjob trigger triggers automation automations applet applets integration delegation
        delegate daemon key keys link links policy scheduler schedule
        regel regeln weiterleitung berechtigung zugriff freigabe schluessel schlussel regle autorisation acces partage
        regla permiso acceso clave regola permesso accesso chiave regra permissao acesso chave machtiging toegang
        sleutel
        """,
    "member": "user users member members collaborator collaborators benutzer utilisateur usuario utente gebruiker",
    "tracker": "ticket tickets issue issues case incident request task pr",
    "fixture": "door doors gate valve window garage breaker",
    "money": """
        payment payments payee beneficiary order orders refund purchase trade transfer reservation reservations booking
        bookings transaction transactions account accounts invoice invoices flight flights ticketing funds money
        zahlung ueberweisung buchung bestellung konto paiement virement commande compte pago pedido cuenta pagamento
        ordine conto conta betaling boeking rekening
        """,
    "calendar": """
        calendar event events meeting meetings appointment appointments kalender termin termine besprechung calendrier
        evenement reunion rendezvous calendario evento cita reunione riunione appuntamento agenda afspraak vergadering
        """,
    "web": """
        web website websites webpage webpages url urls uri internet http https dns whois duckduckgo tavily serp serpapi
        perplexity wikipedia arxiv browser online rss
        """,
    "look": """
        query queries report reports analysis analytics search statistics stats simulation calculation calculations
        scan check checks lookup
        """,
    "state": """
        status state info information details detail history stats statistics count summary price prices balance
        forecast weather rate rates version schema metadata time date day now today help usage availability overview
        metrics health list
        """,
    "people": "human humans person support team operator specialist assistant desk colleague supervisor agent agents",
}

_PHRASES: Final[dict[tuple[str, ...], str]] = {
    ("check", "out"): "pay", ("look", "up"): "read", ("hand", "off"): "send", ("hand", "over"): "send",
    ("shut", "down"): "change", ("set", "up"): "change", ("sign", "up"): "change", ("turn", "off"): "change",
    ("switch", "off"): "change", ("opt", "out"): "change", ("mettre", "jour"): "change", ("roll", "back"): "change",
    ("make", "call"): "send", ("place", "call"): "send", ("place", "order"): "pay",
    ("web", "fetch"): "read", ("final", "answer"): "think",
}  # fmt: skip
_NOUNS_BESIDE_READING: Final = listed("""
    change trade tweet transfer refund charge release patch update push deposit purchase commit backup snapshot
    import index build run block stop start label tag star pin flag upload upgrade reset merge print copy
    move export sort store press turn put test checkout
""")
"""Verbs that are nouns where the name has a reading verb: `get_trade`, `list_update_history`."""
_ENGINES: Final = {
    pair for name in ("google", "bing", "brave", "exa", "yahoo") for pair in ((name, "search"), ("search", name))
}
_JOINTS: Final = listed(
    "to from in on for by with of at into as via and an a over about against auf aus fuer fur de du para per"
)
_JOINING: Final = listed("and or then und oder et ou y")
_DRAFTS: Final = listed("draft drafts entwurf brouillon borrador bozza rascunho concept")
_TESTS: Final = listed("test tests lint linter")
_INVOKED: Final = listed("api function tool contract method tools")
_SENTENCE_WORDS: Final = 12
"""Words of a description within which its verb must stand."""


def _table(kinds: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    strong: dict[str, str] = {}
    weak: dict[str, str] = {}
    for kind, words in kinds.items():
        for word in words.split():
            (weak if word.endswith("?") else strong).setdefault(word.rstrip("?"), kind)
    return strong, weak


VERBS, WEAK_VERBS = _table(_VERBS)
_OBJECT_WORDS: Final = {kind: listed(words) for kind, words in _OBJECTS.items()}
_NOUNS: Final = frozenset().union(*_OBJECT_WORDS.values())
_COMPOUND: Final = sorted((verb for verb, kind in VERBS.items() if len(verb) >= 3 and kind != "vague"), key=len)


def both(one: Effect, other: Effect) -> Effect:
    """The effect of an act that does both; the stricter of two readings."""
    if other == one:
        return one
    return Effect(
        tool=one.tool or other.tool,
        reads=one.reads or other.reads,
        sends=one.sends or other.sends,
        changes=one.changes or other.changes,
        runs=one.runs or other.runs,
        reversible=one.reversible and other.reversible,
        standing=one.standing or other.standing,
        known=one.known and other.known,
        outward=one.outward or other.outward,
        odd_name=one.odd_name or other.odd_name,
    )


def split(name: str, *, most: int = 128) -> list[str]:
    """The words of an ASCII name, in lower case: parted at signs, digits and changes of case, at most `most`."""
    words: list[str] = []
    start = -1
    for index, char in enumerate(name):
        if not char.isalpha():
            if start >= 0:
                words.append(name[start:index].lower())
            start = -1
        elif start < 0:
            start = index
        elif char.isupper() and (name[index - 1].islower() or name[index + 1 : index + 2].islower()):
            words.append(name[start:index].lower())
            start = index
        if len(words) >= most:
            return words
    if start >= 0:
        words.append(name[start:].lower())
    return words


def parted(word: str) -> list[str]:
    """`sendemail` as `send`, `email`: a word that is a verb and a known object written together, else the word."""
    if 6 <= len(word) <= 32 and word not in VERBS and word not in _NOUNS:
        for verb in _COMPOUND:
            if word.startswith(verb) and word[len(verb) :] in _NOUNS:
                return [verb, word[len(verb) :]]
            if word.endswith(verb) and word[: -len(verb)] in _NOUNS:
                return [word[: -len(verb)], verb]
    return [word]


def is_a(kind: str, words: Iterable[str]) -> bool:
    """Whether one of the words is an object of that kind."""
    return not _OBJECT_WORDS[kind].isdisjoint(words)


def verbs_of(words: Sequence[str]) -> list[str]:
    """Kinds of the verbs in a name, without doubles; empty where it has none."""
    found: list[tuple[str, str]] = []
    for index, word in enumerate(words):
        if kind := _PHRASES.get(tuple(words[index : index + 2])):
            found.append(("", kind))
        elif (
            (kind := VERBS.get(word))
            and kind != "vague"
            and tuple(words[max(index - 1, 0) : index + 1]) not in _PHRASES
        ):
            found.append((word, kind))
    if any(kind == "read" for _, kind in found) and _JOINING.isdisjoint(words):
        found = [(word, kind) for word, kind in found if word not in _NOUNS_BESIDE_READING]
    if not found:
        return _weak(words) if words else []
    return list(dict.fromkeys(kind for _, kind in found))


def is_vague(words: Sequence[str]) -> bool:
    """Whether a name leaves it to the arguments what is done: it has no verb, or only one like `manage`."""
    return not any(VERBS.get(word, "vague") != "vague" for word in words) and not any(
        pair in _PHRASES for pair in pairwise(words)
    )


def _weak(words: Sequence[str]) -> list[str]:
    if any(VERBS.get(word) == "vague" for word in words):
        return []
    if len(words) > 1 and is_a("state", words[-1:]):
        return ["read"]
    if done := _doer(words[-1]):
        return [done]
    if len(words) > 1 and words[0] == "report":
        return ["send"]
    if "call" in words and not _INVOKED.isdisjoint(words):
        return ["run"]
    first, last = words[0], words[-1]
    object_first = first in _NOUNS and last not in _NOUNS and last in WEAK_VERBS  # `mail_lock`, but `post_comment`
    for word in (last, first) if object_first else (first, last):
        if word == "open" and is_a("tracker", words):
            return ["make"]
        if word == "open" and (is_a("fixture", words) or is_a("money", words)):
            return ["change"]
        if kind := WEAK_VERBS.get(word):
            return [kind]
    return ["read"] if is_a("state", words[-1:]) else []


def _doer(word: str) -> str:
    """The kind of the verb in a word like `analyzer`, `generator`, `formatter`, `notifier`; "" where it has none."""
    if len(word) < 6 or word[-2:] not in ("er", "or"):
        return ""
    stem = word[:-2]
    for verb in (stem, stem + "e", stem[:-1], stem[:-1] + "y"):
        if (kind := VERBS.get(verb)) and kind != "vague":
            return kind
    return ""


def effect_of(words: Sequence[str], context: Sequence[str] = ()) -> Effect:
    """What a name made of these words says that a tool does; `UNKNOWN` where it says nothing.

    Args:
        words: The words of the name, in order (`split`).
        context: Words around it (server, module, platform) that may name the object where the name does not.
    """
    kinds = verbs_of(words)
    if not kinds:
        handles_money = is_a("money", words) and any(VERBS.get(word) == "vague" for word in words)
        return CHANGES if handles_money else UNKNOWN
    effect = _of_verb(kinds[0], words, context)
    for kind in kinds[1:]:
        effect = both(effect, _of_verb(kind, words, context))
    return effect


def _of_verb(kind: str, words: Sequence[str], context: Sequence[str]) -> Effect:
    """What one verb says, given its object."""
    head = _head(words) or _head(context)
    if kind == "read":
        outward = is_a("web", words) or is_a("web", context) or any(pair in _ENGINES for pair in pairwise(words))
        return Effect(reads=True, reversible=True, known=True, outward=outward)
    if kind == "change" and "resolve" in words and is_a("web", words):
        return Effect(reads=True, reversible=True, known=True, outward=True)
    if kind in ("make", "arrange", "change"):
        return _of_change(kind, head, words)
    if kind == "schedule" and is_a("calendar", (head,)):
        return MAKES
    if kind == "schedule" and is_a("message", (head,)):
        return both(SENDS, LASTS)
    if kind == "pay" and "transfer" in words and is_a("people", words):
        return SENDS
    if kind == "run":
        if is_a("money", (head,)):
            return CHANGES
        if _TESTS.isdisjoint(words) and is_a("look", (head,)):
            return READS
    if kind == "send" and is_a("invitation", words) and is_a("member", words):
        return both(SENDS, LASTS)
    return _DEEDS[kind]


def _of_change(kind: str, head: str, words: Sequence[str]) -> Effect:
    if is_a("standing", (head,)) and kind != "arrange":
        return LASTS
    if is_a("member", (head,)) and kind == "make":
        return LASTS
    if not _DRAFTS.isdisjoint(words) or is_a("workspace", (head,)):
        return MAKES
    if kind == "make":
        if is_a("message", (head,)):
            return both(SENDS, MAKES)
        if is_a("invitation", (head,)):
            return both(SENDS, MAKES)
        if is_a("money", (head,)):
            return CHANGES
    return _DEEDS[kind]


def _head(words: Sequence[str]) -> str:
    """What the name is about: its last known object before a preposition, else the one behind it."""
    found = ""
    for index, word in enumerate(words):
        if word in _JOINTS and found:
            break
        if word in _NOUNS and not (index == 0 and word in VERBS and len(words) > 1):
            found = word
    return found


def effect_of_description(text: str) -> Effect:
    """What the verb that begins a description says, with those joined to it by ``and``; `UNKNOWN` where none does."""
    words = [_plain(word) for word in split(text, most=_SENTENCE_WORDS)]
    first = next((index for index, word in enumerate(words[:4]) if VERBS.get(word, "vague") != "vague"), None)
    if first is None:
        return UNKNOWN
    effect = _of_verb(VERBS[words[first]], words[first : first + 8], ())
    for index in range(first + 1, len(words) - 1):
        kind = VERBS.get(words[index + 1], "vague")
        if words[index] in _JOINING and kind != "vague":
            effect = both(effect, _of_verb(kind, words[index + 1 :], ()))
    return effect


def _plain(word: str) -> str:
    """An English verb without its ending: `sends`, `deletes`, `searches`, `modifies`, `creating`."""
    if word in VERBS or word in _NOUNS:
        return word
    for ending, instead in (("ies", "y"), ("es", ""), ("s", ""), ("ing", ""), ("ing", "e")):
        if word.endswith(ending) and (stem := word.removesuffix(ending) + instead) in VERBS:
            return stem
    return word
