package webhook

import (
	"encoding/base64"
	"fmt"
	"strings"

	standard "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/rossby-go/rossby/jetstream"
)

// The lengths of a secret, in bytes, that Standard Webhooks allows.
const (
	secretMin = 24
	secretMax = 64
)

// signers reads the secrets. Errors do not show them.
func signers(secrets []string) ([]*standard.Webhook, error) {
	keys := make([]*standard.Webhook, 0, len(secrets))
	for i, secret := range secrets {
		raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
		field := fmt.Sprintf("Secrets[%d]", i)
		if err != nil {
			return nil, &jetstream.InvalidError{Field: field, Value: "…", Reason: "is not base64"}
		}
		if len(raw) < secretMin || len(raw) > secretMax {
			return nil, &jetstream.InvalidError{
				Field: field, Value: "…",
				Reason: fmt.Sprintf("has %d bytes, not %d to %d", len(raw), secretMin, secretMax),
			}
		}
		key, err := standard.NewWebhookRaw(raw)
		if err != nil {
			return nil, &jetstream.InvalidError{Field: field, Value: "…", Reason: err.Error()}
		}
		keys = append(keys, key)
	}
	return keys, nil
}
