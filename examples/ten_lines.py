"""A plain Python agent and, at its end, the lines that gate it: ten at the most.

sidecar run &
SMTP_PORT=2525 python -m examples.ten_lines
"""
# ruff: noqa: E402

import os
import smtplib
from email.message import EmailMessage

TASK = "Tell amy@corp.example that lunch is at noon."


def send_mail(to: str, subject: str, body: str) -> str:
    """The agent's tool, as it was before."""
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "helper@corp.example", to, subject
    mail.set_content(body)
    with smtplib.SMTP("127.0.0.1", int(os.environ["SMTP_PORT"])) as server:
        server.send_message(mail)
    return f"sent to {to}"


def work() -> str:
    """The agent, as it was before; a model would choose the tool and the words."""
    return send_mail("amy@corp.example", "Lunch", "Lunch is at noon today.")


# What gates it:
import sidecar.agent as sidecar

agent = sidecar.connect("mail-helper")
send_mail = agent.tool(send_mail)

with agent, agent.session() as session:
    session.message("user", TASK)
    try:
        print(work())
    except sidecar.SidecarRefusal as refusal:
        print(f"not done: {refusal}")
