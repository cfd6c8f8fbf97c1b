"""Numbers over an audit's rows: what they amount to, whether its maps hold, another model's."""
