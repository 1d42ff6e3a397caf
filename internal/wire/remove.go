package wire

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go"
)

// Delete removes one message, without overwriting it. Returns an [*APIError] when
// there is none of the sequence, among others.
func Delete(ctx context.Context, nc *nats.Conn, stream string, sequence uint64) error {
	return remove(ctx, nc, "$JS.API.STREAM.MSG.DELETE."+stream, map[string]any{"seq": sequence, "no_erase": true})
}

// Purge removes the messages of a subject filter up to a sequence, which is
// removed, too; all of them with 0.
func Purge(ctx context.Context, nc *nats.Conn, stream, filter string, upTo uint64) error {
	request := map[string]any{"filter": filter}
	if upTo > 0 {
		request["seq"] = upTo + 1
	}
	return remove(ctx, nc, "$JS.API.STREAM.PURGE."+stream, request)
}

func remove(ctx context.Context, nc *nats.Conn, subject string, request map[string]any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	msg, err := Ask(ctx, nc, subject, body)
	if err != nil {
		return err
	}
	var resp struct {
		Error *APIError `json:"error"`
	}
	if err := json.Unmarshal(msg.Data, &resp); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if resp.Error != nil {
		return resp.Error
	}
	return nil
}
