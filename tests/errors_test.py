"""The errors that end the program."""

import signal

from trainer import errors


def test_each_error_has_its_exit_code():
    codes = {error.exit_code for error in (errors.InputError, errors.StorageError, errors.NonFiniteError)}
    assert codes | {errors.PeerLostError.exit_code} == {2, 3, 4, 5}


def test_the_exit_code_of_a_signal_is_128_plus_its_number():
    error = errors.InterruptedBySignalError(signal.SIGTERM, "Ended by SIGTERM.")
    assert (error.exit_code, str(error)) == (143, "Ended by SIGTERM.")
