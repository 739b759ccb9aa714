from __future__ import annotations

import asyncio
import threading

import pytest
from argon2 import PasswordHasher

from pacsbridge.accounts.common_passwords import COMMON_PASSWORDS
from pacsbridge.accounts.passwords import MAXIMUM_LENGTH, Passwords, check_password, is_password_hash
from pacsbridge.errors import Busy, InvalidParameter
from tests.accounts.examples import HASHER, PASSWORD


@pytest.mark.parametrize(
    "password",
    [
        "",
        "short",
        "1234567",
        "password",
        "PassWord",
        "password1",
        "Password2024",
        "password!!!!",
        "qwertyuiop",
        "12345678",
        "23456789",
        "hgfedcba",
        "aaaaaaaa",
        "abababab",
        "Radiologie1",
        "pacsbridge",
        "pacsbridge1!",
        "jane.doe",
        "Jane.Doe@example.org",
        "ｐａｓｓｗｏｒｄ",
        "x" * (MAXIMUM_LENGTH + 1),
    ],
)
def test_a_password_that_would_be_guessed_is_refused(password: str) -> None:
    with pytest.raises(InvalidParameter):
        check_password(password, email="jane.doe@example.org")


@pytest.mark.parametrize(
    "password", [PASSWORD, "winter is a long novel", "пароль-для-рентгену", "h8!kQz_2", "Az9" * 42 + "xy"]
)
def test_a_good_password_is_taken(password: str) -> None:
    check_password(password, email="jane.doe@example.org")


def test_the_list_is_some_hundreds_of_words_in_the_form_they_are_looked_up_in() -> None:
    assert 300 < len(COMMON_PASSWORDS) < 2000
    assert all(word == word.casefold() for word in COMMON_PASSWORDS)


async def test_verify() -> None:
    passwords = Passwords()
    made = await passwords.hash(PASSWORD)
    assert made.startswith("$argon2id$")
    assert await passwords.verify(PASSWORD, made)
    assert not await passwords.verify(PASSWORD + "x", made)
    assert not await passwords.verify(PASSWORD, "not a hash")
    passwords.close()


async def test_a_composed_and_a_decomposed_letter_are_one() -> None:
    passwords = Passwords()
    assert await passwords.verify("Schlüssel-Bund", await passwords.hash("Schlüssel-Bund"))
    passwords.close()


async def test_nobodys_password_is_hashed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong email must cost what a wrong password costs."""
    passwords = Passwords()
    checked: list[str] = []
    matches = Passwords._matches

    def spy(self: Passwords, password_hash: str, password: str) -> bool:
        checked.append(password_hash)
        return matches(self, password_hash, password)

    monkeypatch.setattr(Passwords, "_matches", spy)
    assert not await passwords.verify("nobody's password", None)
    assert len(checked) == 1
    assert checked[0].startswith("$argon2id$")
    passwords.close()


async def test_a_hash_of_other_parameters_is_outdated() -> None:
    passwords = Passwords()
    assert not passwords.outdated(await passwords.hash(PASSWORD))

    assert passwords.outdated(PasswordHasher(time_cost=2, memory_cost=8, parallelism=1).hash(PASSWORD))
    passwords.close()


async def test_only_so_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    passwords = Passwords(workers=1, waiting=2)
    gate = threading.Event()

    def slow(*_: object) -> bool:
        return gate.wait(10)

    monkeypatch.setattr(Passwords, "_matches", slow)
    waiting = [asyncio.create_task(passwords.verify(PASSWORD, None)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Busy) as caught:
        await passwords.verify(PASSWORD, None)
    assert caught.value.retry_after
    waiting[0].cancel()
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await passwords.verify(PASSWORD, None)  # the thread is still at it, whoever has gone
    gate.set()
    await asyncio.gather(*waiting, return_exceptions=True)
    while passwords._pending:
        await asyncio.sleep(0.01)
    passwords.close()


def test_is_password_hash() -> None:
    assert is_password_hash(HASHER.hash("x"))
    assert not is_password_hash("$2b$12$abcdefghijklmnopqrstuv")
    assert not is_password_hash("hunter2")
    assert not is_password_hash("$argon2id$nonsense")
