package jetstream

import "fmt"

// ConnectError is returned by [Connect] when NATS could not be reached, or would
// not let the client in.
type ConnectError struct {
	// Address is what was tried, without passwords.
	Address string
	// Cause is why the last attempt failed. The end of the caller's context is
	// joined to it.
	Cause error
}

// Error names the address and the last reason.
func (e *ConnectError) Error() string {
	return fmt.Sprintf("cannot connect to NATS at %s: %v", e.Address, e.Cause)
}

// Unwrap gives the last reason.
func (e *ConnectError) Unwrap() error { return e.Cause }
