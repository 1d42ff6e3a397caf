package webhook

import (
	"errors"
	"fmt"
	"net/netip"
)

var (
	// ErrAddress is matched by every [*AddressError].
	ErrAddress = errors.New("the address is not allowed")
	// ErrUnsigned is returned by [Receiver.Verify] for a request without the headers
	// of a signature, or with malformed ones.
	ErrUnsigned = errors.New("the request bears no signature of Standard Webhooks")
	// ErrSignature is returned by [Receiver.Verify] for a signature that none of the
	// secrets made of this body.
	ErrSignature = errors.New("the signature does not match")
	// ErrTimestamp is returned by [Receiver.Verify] for a request that was signed too
	// long ago, or too far ahead.
	ErrTimestamp = errors.New("the signature's time is out of bounds")
	// ErrTooLarge is returned by [Receiver.Verify] for a body beyond the bound.
	ErrTooLarge = errors.New("the body is too large")
)

// StatusError is an answer other than 2xx.
type StatusError struct {
	// Code is the HTTP status, Body the beginning of the answer.
	Code int
	Body string
}

// Error names the status and the beginning of the answer.
func (e *StatusError) Error() string {
	if e.Body == "" {
		return fmt.Sprintf("webhook: status %d", e.Code)
	}
	return fmt.Sprintf("webhook: status %d: %q", e.Code, e.Body)
}

// AddressError is an address that nothing is sent to.
type AddressError struct {
	Address netip.Addr
	// Kind says what the address is: "loopback", "private" and so on.
	Kind string
}

// Error names the address.
func (e *AddressError) Error() string {
	return fmt.Sprintf("webhook: %v: %s is %s (AllowNetworks can allow it)", ErrAddress, e.Address, e.Kind)
}

// Is matches [ErrAddress].
func (e *AddressError) Is(target error) bool { return target == ErrAddress }
