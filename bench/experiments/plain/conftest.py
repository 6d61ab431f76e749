"""The option that makes one case slower on purpose."""


def pytest_addoption(parser):
    parser.addoption("--hiddencost-slower", type=float, default=0.0, metavar="SHARE")
