package codec_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/internal/codec"
)

// A value that holds itself is an error. An encoder that followed it would end the
// process: the stack's end cannot be recovered from.
func TestValuesThatHoldThemselves(t *testing.T) {
	t.Parallel()
	type list struct {
		Name string `json:"name"`
		Next *list  `json:"next,omitempty"`
	}
	type tree struct{ Children []tree }
	type forest struct{ ByName map[string]*forest }
	type within struct{ First list }
	ring := &list{Name: "a"}
	ring.Next = &list{Name: "b", Next: ring}
	wood := &forest{ByName: map[string]*forest{}}
	wood.ByName["self"] = wood
	branches := make([]tree, 1)
	branches[0].Children = branches
	for what, v := range map[string]any{
		"pointers": ring, "a field": within{*ring}, "maps": *wood, "slices": tree{branches},
	} {
		if err := codec.Check(reflect.TypeOf(v)); err != nil {
			t.Fatal(err)
		}
		for _, c := range []codec.Codec{codec.Msgpack, codec.JSON} {
			if _, err := c.Encode(v); err == nil || !strings.Contains(err.Error(), "hold itself") {
				t.Errorf("%s in %s: %v", what, c, err)
			}
		}
	}
	// Deep values that end are stored, and read again.
	deep := &list{Name: "end"}
	for range 1000 {
		deep = &list{Name: "x", Next: deep}
	}
	for _, c := range []codec.Codec{codec.Msgpack, codec.JSON} {
		data, err := c.Encode(deep)
		if err != nil {
			t.Fatal(c, err)
		}
		var got list
		if err := c.Decode(data, &got); err != nil || !reflect.DeepEqual(&got, deep) {
			t.Error(c, err)
		}
		if _, err := c.Encode(tree{Children: []tree{{}, {Children: []tree{{}}}}}); err != nil {
			t.Error(c, err)
		}
	}
}
