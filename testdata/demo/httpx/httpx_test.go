package httpx

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// The server is on the loopback interface, which every machine has.
func TestTriesAgain(t *testing.T) {
	document := bytes.Repeat([]byte("sandrun "), 1<<20)
	var requests atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if requests.Add(1) < 3 {
			http.Error(w, "busy", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write(document)
	}))
	defer server.Close()
	c := &Client{HTTP: server.Client(), Tries: 3, Wait: time.Millisecond}
	got, err := c.Get(t.Context(), server.URL)
	if err != nil || !bytes.Equal(got, document) {
		t.Errorf("got %d bytes, %v; want %d", len(got), err, len(document))
	}
	if n := requests.Load(); n != 3 {
		t.Errorf("%d requests, want 3", n)
	}
}

func TestGivesUp(t *testing.T) {
	for status, tries := range map[int]int32{http.StatusBadGateway: 2, http.StatusNotFound: 1} {
		var requests atomic.Int32
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			requests.Add(1)
			w.WriteHeader(status)
		}))
		defer server.Close()
		c := &Client{HTTP: server.Client(), Tries: 2, Wait: time.Millisecond}
		if _, err := c.Get(t.Context(), server.URL); err == nil {
			t.Errorf("status %d is no error", status)
		}
		if n := requests.Load(); n != tries {
			t.Errorf("status %d: %d requests, want %d", status, n, tries)
		}
	}
}
