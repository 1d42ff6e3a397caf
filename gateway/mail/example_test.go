package mail_test

import (
	"fmt"
	"log"

	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/gateway/mail"
	"github.com/rossby-go/rossby/jetstream"
)

type SignedUp struct{ Name, Email string }

// A letter to everybody who signs up.
func ExampleNew() {
	mailer, err := mail.New(mail.Config{Host: "smtp.example.com", From: "The Club <club@example.com>"})
	if err != nil {
		log.Fatal(err)
	}
	members := jetstream.NewSchema("member", jetstream.Event[SignedUp]("signed-up"))
	welcome := mail.Send(mailer, func(e SignedUp, _ gateway.Delivery) (*mail.Message, error) {
		return &mail.Message{To: []string{e.Email}, Subject: "Welcome, " + e.Name, Text: "We are glad."}, nil
	})
	_ = gateway.On(members, welcome) // for gateway.New

	_, err = mail.New(mail.Config{From: "nobody"})
	fmt.Println(err)
	// Output:
	// mail: Host "" is not a host
	// From "nobody" is not an address: mail: missing '@' or angle-addr
}
