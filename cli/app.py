"""The command `hfgrow app`: a page in the browser that plans growths and tells lineages.

Nothing is written, and of the Hub only headers are read. A Space serves it by `space`.
"""

import os
import threading
import webbrowser
from typing import Annotated, Any

import typer

from hfgrow.console import waiting
from hfgrow.errors import OutputError, require
from hfgrow.plan.operators import OPERATORS

from . import options
from .page import STYLE, Field, fields_of, lineage_page, plan_page
from .terminal import Console

_HERE = "127.0.0.1"
# To import gradio alone takes seconds.
_OPENING = "Opening the page"
_EXAMPLES = """\
hfgrow app
hfgrow app --port 8000 --open"""
_MODELS = ("demo", "SmolLM2-135M", "TinyLlama", "Qwen3-0.6B-Base")
# What gradio reads when it is imported or launched; what it would send, and where it would listen.
_SETTINGS = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_MCP_SERVER": "False",
}
# Of all that ask, and no API is told of.
_ONE_AT_A_TIME: dict[str, Any] = {
    "concurrency_limit": 1,
    "concurrency_id": "hfgrow",
    "api_name": False,
}
# Nothing is uploaded.
_MAX_UPLOAD_NBYTES = 1


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("app", epilog=_EXAMPLES)(serve)


def serve(
    port: Annotated[
        int | None,
        typer.Option(
            "--port", metavar="N", min=1, max=65535, help="Port.  [default: a free one from 7860]"
        ),
    ] = None,
    browser: Annotated[bool, typer.Option("--open", help="Open the browser too.")] = False,
    only_hub: Annotated[
        bool,
        typer.Option(
            "--only-hub", help="Read no folder of this machine and send no token, as a Space does."
        ),
    ] = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Serve a page on this machine that plans a growth and shows a lineage, until Ctrl-C.

    Nothing is written, and of a Hub model no weight is downloaded. Nobody else reaches the page:
    it listens on 127.0.0.1 alone.
    More: hfgrow docs app
    """
    console = Console(as_json=json, quiet=quiet)
    require("hfgrow app", "gradio", extra="app")
    console.say(_OPENING)
    with waiting(console, _OPENING):
        url = launch(only_hub=only_hub, host=_HERE, port=port)
    console.say("Stop it by Ctrl-C")
    console.result(url, {"url": url, "only_hub": only_hub})
    if browser:
        webbrowser.open(url)
    threading.Event().wait()


def space() -> None:
    """Serve the page to strangers, as a Space does; it never returns.

    A model is a name of the Hub then: no folder, token or cache of this machine is read. Where it
    listens is what the environment of a Space says, GRADIO_SERVER_NAME and GRADIO_SERVER_PORT.

    Raises:
        UsageError: gradio is not installed.
    """
    launch(only_hub=True, host=None, port=None)
    threading.Event().wait()


def launch(*, only_hub: bool, host: str | None, port: int | None) -> str:
    """Start a server of the page in a thread, and return its address.

    Args:
        only_hub: Whether the page is for strangers.
        host: The address to listen on; None leaves it to the environment, or 127.0.0.1.
        port: The port; None takes the first free one from 7860 on, or leaves it to the environment.

    Raises:
        UsageError: gradio is not installed.
        OutputError: The port is taken.
    """
    blocks = page(only_hub=only_hub)
    from gradio import themes
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    # A page of another site, whose name has come to mean this machine, is not answered.
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[_HERE, "localhost"])
    try:
        return str(
            blocks.launch(
                server_name=host,
                server_port=port,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                inline=False,
                max_file_size=_MAX_UPLOAD_NBYTES,
                app_kwargs={"middleware": [hosts] if host == _HERE else []},
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                theme=themes.Default(primary_hue="indigo"),
                css=STYLE,
            )[1]
        )
    except OSError as error:
        wrong = "no port from 7860 on is free" if port is None else f"port {port} cannot be had"
        raise OutputError(wrong, hint="give another --port") from error


def page(*, only_hub: bool) -> Any:
    """Return the page as Blocks of gradio.

    Args:
        only_hub: Whether it is for strangers.

    Raises:
        UsageError: gradio is not installed.
    """
    require("hfgrow app", "gradio", extra="app")
    os.environ |= _SETTINGS
    import gradio as gr

    what = "Alias or org/name." if only_hub else options.MODEL_HELP
    with gr.Blocks(title="hfgrow", analytics_enabled=False) as blocks:
        gr.Markdown("# hfgrow\nPlan a growth from headers alone: nothing is written or downloaded.")
        with gr.Tab("Plan a growth"), gr.Row():
            with gr.Column(scale=2, min_width=320):
                model = gr.Textbox(
                    "demo", label="Model", info=what, elem_id="model", interactive=True
                )
                gr.Examples([[name] for name in _MODELS], model, label="Such as")
                operator = gr.Dropdown(
                    [(f"{row.name}: {row.summary}", row.name) for row in OPERATORS.values()],
                    value="stack",
                    label="Operator",
                    elem_id="operator",
                )
                asked = gr.Column()
            with gr.Column(scale=3, min_width=320):
                command = gr.Code(
                    label="Command",
                    language="shell",
                    interactive=False,
                    lines=1,
                    wrap_lines=True,
                    show_line_numbers=False,
                    elem_id="command",
                )
                shown = gr.HTML(elem_id="plan")
        with gr.Tab("Lineage"):
            grown = gr.Textbox(label="Model", info=what, elem_id="grown", interactive=True)
            asks = gr.Button("Show the lineage", variant="primary", elem_id="ask-lineage")
            chain = gr.HTML(elem_id="lineage")

        def told(model: str) -> str:
            return lineage_page(model, only_hub=only_hub).html

        gr.on([asks.click, grown.submit], told, grown, chain, **_ONE_AT_A_TIME)
        with asked:
            gr.render(operator)(lambda name: _form(gr, name, model, command, shown, only_hub))
    return blocks


def _form(gr: Any, name: str, model: Any, command: Any, shown: Any, only_hub: bool) -> None:
    """Put the fields of an operator on the page, and the button that plans."""
    fields = fields_of(name)
    own = [field for field in fields if field.is_own]
    others = [field for field in fields if not field.is_own]
    widgets = {field.name: _widget(gr, field) for field in own}
    with gr.Accordion("More", open=False):
        widgets |= {field.name: _widget(gr, field) for field in others}
    button = gr.Button("Plan", variant="primary", elem_id="ask-plan")

    def plan(model: str, *values: object) -> tuple[str, str]:
        answer = plan_page(name, model, dict(zip(widgets, values, strict=True)), only_hub=only_hub)
        return answer.command, answer.html

    asked = [button.click, model.submit]
    gr.on(asked, plan, [model, *widgets.values()], [command, shown], **_ONE_AT_A_TIME)


def _widget(gr: Any, field: Field) -> Any:
    """Return what asks for a field; a number is typed, for gradio has none that is empty."""
    told = {"label": field.typed, "info": field.help, "interactive": True}
    told["elem_id"] = f"field-{field.name}"
    if field.kind is bool:
        return gr.Checkbox(field.example, **told)
    if field.choices:
        return gr.Dropdown(list(field.choices), value=field.example, **told)
    return gr.Textbox("" if field.example is None else str(field.example), **told)
