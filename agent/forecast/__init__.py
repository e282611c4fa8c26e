"""The forecasts of a site's zones: fed by the pipeline, issued every hour, put into the words of the wire."""
