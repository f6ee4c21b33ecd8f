// Package httpx gets documents over HTTP and tries again when a server is busy.
package httpx

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// A Client gets documents.
type Client struct {
	HTTP  *http.Client
	Tries int           // at least 1
	Wait  time.Duration // before the second try; doubled before each later one
}

// Get returns the body at url. It tries again after 429 and 5xx.
func (c *Client) Get(ctx context.Context, url string) ([]byte, error) {
	wait := c.Wait
	for try := 1; ; try++ {
		body, again, err := c.once(ctx, url)
		if err == nil || !again || try == c.Tries {
			return body, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
			wait *= 2
		}
	}
}

// once does one request; again says whether another could help.
func (c *Client) once(ctx context.Context, url string) (body []byte, again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, false, err
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return nil, true, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		busy := resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500
		return nil, busy, fmt.Errorf("get %s: %s", url, resp.Status)
	}
	body, err = io.ReadAll(resp.Body)
	return body, true, err
}
