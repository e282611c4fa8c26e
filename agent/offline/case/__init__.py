"""The evidence page of one alert."""
